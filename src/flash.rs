//! Messages for the next page that the user sees, each shown once.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};

use crate::{
    error::{ErrorKind, SessionError},
    record::decode,
    session::Session,
};

/// Where the messages are, as `[["success","Saved."]]`. An app's key, so that [`Session::clear`] removes them, and so that a message keeps a
/// session that holds nothing else.
const KEY: &str = "flash_messages";

/// If no page ever takes them, the newest this many are kept.
const MAX_MESSAGES: usize = 32;

/// A message for the next page, from [`Session::flash`]. Serialized as `{"level":"success","text":"Saved."}`, for templates.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FlashMessage {
    /// How it is shown.
    pub level: FlashLevel,
    /// As it was passed to [`Session::flash`]: escape it in HTML.
    pub text: String,
}

/// The level of a [`FlashMessage`]. Its text form, for a CSS class and for serde, is the name in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlashLevel {
    /// Neither good nor bad: "You are signed out."
    Info,
    /// What the user asked for was done.
    Success,
    /// It was done, but something needs attention.
    Warning,
    /// It was not done.
    Error,
}

/// The stored form.
type Stored = Vec<(FlashLevel, String)>;

impl Session {
    /// Adds a message for the next page that the user sees, also after a redirect.
    ///
    /// [`take_flashes`](Self::take_flashes), or with axum the extractor [`FlashMessages`](crate::FlashMessages), takes the messages. Messages
    /// that concurrent requests add are all kept, in the order of their saves. They are kept in the session under `flash_messages`:
    /// [`clear`](Self::clear) and [`destroy`](Self::destroy) remove those that were added before.
    ///
    /// ```
    /// use axum_redis_sessions::{FlashLevel, Session, SessionError};
    ///
    /// fn log_out(session: &Session) -> Result<(), SessionError> {
    ///     session.destroy();
    ///     // Begins a session that ends when the message is taken.
    ///     session.flash(FlashLevel::Info, "You are signed out.")
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the app keeps something else under `flash_messages`.
    pub fn flash(&self, level: FlashLevel, text: impl Into<String>) -> Result<(), SessionError> {
        let text = text.into();
        let add = move |messages: Option<Stored>| {
            let mut messages = messages.unwrap_or_default();
            messages.push((level, text.clone()));
            let surplus = messages.len().saturating_sub(MAX_MESSAGES);
            messages.drain(..surplus);
            messages
        };
        self.update(KEY, add).map(drop)
    }

    /// Takes the messages of [`flash`](Self::flash), the oldest first.
    ///
    /// If there are any, the session is [saved](Self::save) at once without them, with all changes so far. So each message is returned by one
    /// request, however many ask at the same time, and also if this request then fails. Without messages, Redis is not contacted.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save), but if the session has ended, there are no messages. [`ErrorKind::Decode`] if the app keeps something else
    /// under `flash_messages`.
    pub async fn take_flashes(&self) -> Result<Vec<FlashMessage>, SessionError> {
        if !self.contains_key(KEY) {
            return Ok(Vec::new());
        }
        // Of the version that the save builds on: after a conflict this runs again.
        let taken: Arc<Mutex<Stored>> = Arc::default();
        let removed = taken.clone();
        self.replace(KEY, move |key, value| {
            let messages = value.map_or(Ok(None), |value| decode(key, value))?;
            *removed.lock().unwrap_or_else(PoisonError::into_inner) = messages.unwrap_or_default();
            Ok(((), None))
        })?;
        match self.save().await {
            Err(error) if error.kind() == ErrorKind::Ended => return Ok(Vec::new()),
            saved => saved?,
        }
        let taken = mem::take(&mut *taken.lock().unwrap_or_else(PoisonError::into_inner));
        let message = |(level, text)| FlashMessage { level, text };
        Ok(taken.into_iter().map(message).collect())
    }
}

impl FlashLevel {
    /// `info`, `success`, `warning` or `error`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for FlashLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for FlashLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A level that this version does not know is [`FlashLevel::Info`].
impl<'de> Deserialize<'de> for FlashLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let levels = [Self::Info, Self::Success, Self::Warning, Self::Error];
        let found = levels.into_iter().find(|level| level.as_str() == name);
        Ok(found.unwrap_or(Self::Info))
    }
}

/// Does not show the text.
impl fmt::Debug for FlashMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlashMessage")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl Serialize for FlashMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut message = serializer.serialize_struct("FlashMessage", 2)?;
        message.serialize_field("level", &self.level)?;
        message.serialize_field("text", &self.text)?;
        message.end()
    }
}
