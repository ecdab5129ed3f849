use serde::{Serialize, de::DeserializeOwned};

/// A struct of yours that lives under one key of the session, and is read and encoded as a whole.
///
/// ```
/// use axum_redis_sessions::{Section, Session, SessionError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Cart {
///     items: Vec<u32>,
/// }
///
/// impl Section for Cart {
///     const KEY: &'static str = "cart";
/// }
///
/// async fn add(session: Session) -> Result<String, SessionError> {
///     let cart = session.update_section(|cart: Option<Cart>| {
///         let mut cart = cart.unwrap_or_default();
///         cart.items.push(42);
///         cart
///     })?;
///     Ok(format!("{} items", cart.items.len()))
/// }
/// ```
pub trait Section: Serialize + DeserializeOwned {
    /// The key that the section lives under. It must not begin with `_`.
    const KEY: &'static str;
}
