use std::{ops::Deref, sync::Arc};

use crate::error::{ErrorKind, SessionError};

/// A user, by the text that [`Session::set_user`](crate::Session::set_user) was given. Never empty, so that the sessions of
/// anonymous visitors cannot be listed or revoked as those of one user.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct UserId(Arc<str>);

impl UserId {
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUser`] for the empty text.
    pub(crate) fn new(user: &str) -> Result<Self, SessionError> {
        if user.is_empty() {
            return Err(SessionError::new(
                ErrorKind::InvalidUser,
                "the user is empty, and an empty text identifies no user: pass a stable identifier, such as the user's primary key",
            ));
        }
        Ok(Self(user.into()))
    }
}

impl Deref for UserId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
