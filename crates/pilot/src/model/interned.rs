//! An input of a translation, shared and compared by identity.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A shared immutable value whose equality is its identity: two are equal when they are the same allocation.
///
/// Cache keys are made of these. Comparing one costs a pointer comparison however big the value is, and because a key
/// keeps its inputs alive, an address is never reused while an entry for it exists. The indices of the model hold the
/// other half of the bargain: they keep the old `Interned` when a rebuilt value is equal to it ([`Interned::renew`]).
pub struct Interned<T>(Arc<T>);

impl<T> Interned<T> {
    /// A new identity for a value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// Keeps `old` if `value` equals it, so that nothing that depends on it is translated again.
    pub fn renew(old: Option<&Self>, value: T) -> Self
    where
        T: PartialEq,
    {
        match old {
            Some(old) if **old == value => old.clone(),
            _ => Self::new(value),
        }
    }
}

impl<T> Clone for Interned<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> PartialEq for Interned<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Interned<T> {}

impl<T> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl<T: fmt::Debug> fmt::Debug for Interned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_is_identity_and_renewal_keeps_it() {
        let first = Interned::new(vec![1, 2]);
        assert_ne!(first, Interned::new(vec![1, 2]));
        assert_eq!(first, Interned::renew(Some(&first), vec![1, 2]));
        assert_ne!(first, Interned::renew(Some(&first), vec![1, 3]));
    }
}
