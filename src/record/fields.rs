//! The fields of a record. Those of a cached record are shared by the sessions that were loaded from it.

#[cfg(feature = "local-cache")]
use std::{ops::Deref, sync::Arc};

use super::scan::Span;

#[derive(Clone, Copy)]
pub(super) struct Field {
    /// Including the quotes.
    pub(super) key: Span,
    pub(super) value: Span,
    /// The index of the key's name in `unescaped`.
    pub(super) unescaped: Option<u32>,
}

#[cfg(not(feature = "local-cache"))]
pub(super) type Fields = Vec<Field>;

#[cfg(feature = "local-cache")]
#[derive(Clone)]
pub(super) enum Fields {
    Owned(Vec<Field>),
    Shared(Arc<[Field]>),
}

#[cfg(feature = "local-cache")]
impl Fields {
    pub(super) fn shared(&self) -> Self {
        Self::Shared(match self {
            Self::Owned(fields) => fields.as_slice().into(),
            Self::Shared(fields) => fields.clone(),
        })
    }
}

#[cfg(feature = "local-cache")]
impl Default for Fields {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

#[cfg(feature = "local-cache")]
pub(super) fn owned(fields: Vec<Field>) -> Fields {
    Fields::Owned(fields)
}

#[cfg(not(feature = "local-cache"))]
pub(super) fn owned(fields: Vec<Field>) -> Fields {
    fields
}

#[cfg(feature = "local-cache")]
impl Deref for Fields {
    type Target = [Field];

    fn deref(&self) -> &[Field] {
        match self {
            Self::Owned(fields) => fields,
            Self::Shared(fields) => fields,
        }
    }
}
