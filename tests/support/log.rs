use std::{
    fmt::{self, Write},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::secrets;

/// Everything that is logged through `tracing` or `log`, at any level.
#[derive(Clone, Default)]
pub struct Log(Arc<Inner>);

#[derive(Default)]
struct Inner {
    text: Mutex<String>,
    is_kept: AtomicBool,
}

impl Log {
    /// The log of the whole process, with all its threads, kept as text from now on.
    pub fn of_this_process() -> Self {
        let log = Self::listen();
        log.0.is_kept.store(true, Relaxed);
        log
    }

    /// The same without keeping the text.
    pub(super) fn listen() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            tracing::subscriber::set_global_default(log.clone()).expect("one log in a process");
            // redis-rs logs through `log`.
            log::set_boxed_logger(Box::new(log.clone())).expect("one log in a process");
            log::set_max_level(log::LevelFilter::Trace);
            log
        });
        log.clone()
    }

    pub fn text(&self) -> String {
        self.0.text.lock().expect("no panic").clone()
    }

    fn add(&self, line: &str) {
        secrets::check_line(line);
        if self.0.is_kept.load(Relaxed) {
            let mut text = self.0.text.lock().expect("no panic");
            text.push_str(line);
            text.push('\n');
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The driver of the browser logs the browser's cookies.
        !metadata.target().starts_with("thirtyfour")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut line = attributes.metadata().name().to_owned();
        attributes.record(&mut Line(&mut line));
        self.add(&line);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = String::new();
        values.record(&mut Line(&mut line));
        self.add(&line);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut Line(&mut line));
        self.add(&line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // The tests' WebSocket client logs its own cookie, and a browser's cookie jar what it contains.
        let clients = ["tungstenite::handshake::client", "cookie_store"];
        !clients
            .iter()
            .any(|client| metadata.target().starts_with(client))
    }

    fn log(&self, record: &log::Record<'_>) {
        if log::Log::enabled(self, record.metadata()) {
            self.add(&record.args().to_string());
        }
    }

    fn flush(&self) {}
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("room");
    }
}
