use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::browser::Browser;

/// Visitors who request a page continuously.
pub struct Load {
    answers: Arc<Mutex<Vec<Answer>>>,
    is_over: Arc<AtomicBool>,
    visitors: Vec<JoinHandle<()>>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub visitor: usize,
    pub asked: Instant,
    pub took: Duration,
    pub status: u16,
    pub body: String,
}

impl Load {
    /// Each visitor pauses after each answer.
    pub fn begin(url: &str, browsers: &[Browser], pause: Duration) -> Self {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let visitors = browsers.iter().cloned().enumerate();
        let visitors = visitors.map(|(visitor, browser)| {
            let (url, answers, is_over) = (url.to_owned(), answers.clone(), is_over.clone());
            tokio::spawn(async move {
                while !is_over.load(Relaxed) {
                    let asked = Instant::now();
                    let page = browser.get(&url).await;
                    let answer = Answer {
                        visitor,
                        asked,
                        took: asked.elapsed(),
                        status: page.status,
                        body: page.body,
                    };
                    answers.lock().expect("no panic").push(answer);
                    tokio::time::sleep(pause).await;
                }
            })
        });
        Self {
            visitors: visitors.collect(),
            answers,
            is_over,
        }
    }

    /// The answers so far.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().expect("no panic").clone()
    }

    /// How many were not 200.
    pub fn failed(&self) -> usize {
        let answers = self.answers.lock().expect("no panic");
        answers.iter().filter(|answer| !answer.is_good()).count()
    }

    /// The time since the last answer that was not 200.
    pub fn good_for(&self) -> Duration {
        let answers = self.answers.lock().expect("no panic");
        let bad = answers.iter().filter(|answer| !answer.is_good());
        bad.map(|answer| (answer.asked + answer.took).elapsed())
            .min()
            .unwrap_or(Duration::MAX)
    }

    /// All answers, once every visitor has had the last.
    pub async fn end(self) -> Vec<Answer> {
        self.is_over.store(true, Relaxed);
        for visitor in self.visitors {
            visitor.await.expect("no panic");
        }
        self.answers.lock().expect("no panic").split_off(0)
    }
}

impl Answer {
    pub fn is_good(&self) -> bool {
        self.status == 200
    }
}

/// How long after `since` the last bad answer came.
pub fn recovery_time(answers: &[Answer], since: Instant) -> Duration {
    let bad = answers.iter().filter(|answer| !answer.is_good());
    let last = bad.map(|answer| answer.asked + answer.took).max();
    last.map_or(Duration::ZERO, |at| at.saturating_duration_since(since))
}

/// The time that the slowest took.
pub fn longest<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Duration {
    let times = answers.into_iter().map(|answer| answer.took);
    times.max().unwrap_or_default()
}

/// How many good answers each of so many visitors had.
pub fn good_of_each(answers: &[Answer], visitors: usize) -> Vec<u64> {
    let mut good = vec![0; visitors];
    for answer in answers.iter().filter(|answer| answer.is_good()) {
        good[answer.visitor] += 1;
    }
    good
}
