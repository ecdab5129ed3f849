//! Changes that depend on the present value, and so run again if another request saved first.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::Session;
use crate::{
    error::SessionError,
    record::{decode, encode},
};

impl Session {
    /// Replaces the value under `key` with `f(current)` and returns the new value.
    ///
    /// If another request saves first, `f` runs again on that request's value. So `f` must have no side effects, and the store may
    /// end up with a value other than the one returned.
    ///
    /// `f` outlives the call and therefore owns what it captures:
    ///
    /// ```
    /// # fn example(session: axum_redis_sessions::Session, product: u32) -> Result<(), axum_redis_sessions::SessionError> {
    /// session.update("cart", move |cart: Option<Vec<u32>>| {
    ///     let mut cart = cart.unwrap_or_default();
    ///     cart.push(product);
    ///     cart
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`insert`](Self::insert). If the value that another request stored meanwhile is not a `T`, the
    /// save fails with [`ErrorKind::Decode`](crate::ErrorKind::Decode).
    pub fn update<T, F>(&self, key: &str, f: F) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        self.apply_update(key, move |_, value| Ok(f(value)))
    }

    /// As [`update`](Self::update), but `f` can reject the update: its error ends it, and nothing under `key` changes.
    ///
    /// Its error is the [`source`](Error::source) of the returned one, whose kind is
    /// [`ErrorKind::UpdateRejected`](crate::ErrorKind::UpdateRejected). The same error can come later: if another request saves first and
    /// `f` rejects that request's value, nothing of this request is saved. The layer then answers with the error in place of the
    /// handler, and [`save`](Self::save) returns it. [`with_error_response`](crate::RedisSessionLayer::with_error_response) answers both.
    ///
    /// `f` may run several times, and therefore clones what it captures and gives away:
    ///
    /// ```
    /// use std::error::Error;
    ///
    /// use axum::Form;
    /// use axum_redis_sessions::{ErrorKind, RedisSessionLayer, Session, SessionError};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Product {
    ///     name: String,
    /// }
    ///
    /// async fn add(session: Session, Form(product): Form<Product>) -> Result<String, SessionError> {
    ///     let cart = session.try_update("cart", move |cart: Option<Vec<String>>| {
    ///         let mut cart = cart.unwrap_or_default();
    ///         if cart.len() == 10 {
    ///             return Err("your cart is full");
    ///         }
    ///         cart.push(product.name.clone());
    ///         Ok(cart)
    ///     })?;
    ///     Ok(format!("{} products", cart.len()))
    /// }
    ///
    /// let layer = RedisSessionLayer::in_memory().with_error_response(|error, _| match error.source() {
    ///     Some(reason) if error.kind() == ErrorKind::UpdateRejected => {
    ///         error.to_response().map(|_| reason.to_string())
    ///     }
    ///     _ => error.to_response(),
    /// });
    /// ```
    ///
    /// `f` may return any error type: `source.downcast_ref::<CartFull>()` finds one of the app's own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UpdateRejected`](crate::ErrorKind::UpdateRejected) if `f` returns an error; otherwise as [`update`](Self::update).
    pub fn try_update<T, E, F>(&self, key: &str, f: F) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        E: Into<Box<dyn Error + Send + Sync>>,
        F: Fn(Option<T>) -> Result<T, E> + Send + Sync + 'static,
    {
        self.apply_update(key, move |key, value| {
            f(value).map_err(|error| SessionError::update_rejected(key, error.into()))
        })
    }

    /// Changes the value under `key` in place and returns it. A missing value starts as `T::default()`.
    ///
    /// Replayed as [`update`](Self::update) is.
    ///
    /// ```
    /// use axum_redis_sessions::{Session, SessionError};
    /// use serde::{Deserialize, Serialize};
    ///
    /// const CART: &str = "cart";
    ///
    /// #[derive(Default, Serialize, Deserialize)]
    /// struct Cart {
    ///     items: Vec<u32>,
    /// }
    ///
    /// async fn add(session: Session) -> Result<String, SessionError> {
    ///     let product = 42;
    ///     let cart = session.modify(CART, move |cart: &mut Cart| cart.items.push(product))?;
    ///     Ok(format!("{} items", cart.items.len()))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub fn modify<T, F>(&self, key: &str, f: F) -> Result<T, SessionError>
    where
        T: Default + Serialize + DeserializeOwned,
        F: Fn(&mut T) + Send + Sync + 'static,
    {
        self.update(key, move |value: Option<T>| {
            let mut value = value.unwrap_or_default();
            f(&mut value);
            value
        })
    }

    fn apply_update<T, F>(&self, key: &str, f: F) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(&str, Option<T>) -> Result<T, SessionError> + Send + Sync + 'static,
    {
        self.check_key(key)?;
        self.replace(key, move |key, value| {
            let next = f(key, value.map_or(Ok(None), |value| decode(key, value))?)?;
            let value = encode(key, &next)?;
            Ok((next, Some(value)))
        })
    }

    /// As `update`, from and to JSON text. `None` removes the key.
    pub(crate) fn replace<T, F>(&self, key: &str, update: F) -> Result<T, SessionError>
    where
        F: Fn(&str, Option<&[u8]>) -> Result<(T, Option<Bytes>), SessionError>
            + Send
            + Sync
            + 'static,
    {
        loop {
            let (value, seq) = {
                let state = self.0.state();
                (state.changes.value(&state.base, key), state.changes.seq())
            };
            // `update` may use this session, so the state is not locked.
            let (next, value) = update(key, value.as_deref())?;
            let mut state = self.0.state();
            // Unless a clone of this session changed it in between.
            if state.changes.seq() == seq {
                let update = Arc::new(move |key: &str, value: Option<&[u8]>| {
                    update(key, value).map(|(_, value)| value)
                });
                state.changes.update(key, update, value);
                return Ok(next);
            }
        }
    }
}
