//! What was found while an object was read: errors that refuse it, warnings that do not.

use std::fmt;

use super::FieldPath;

/// Why a field is refused, in the words of Kubernetes' `StatusCause.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The field must be there.
    Required,
    /// The value's format, range or combination is wrong.
    Invalid,
    /// The value is none of a fixed set.
    NotSupported,
    /// The value has another JSON type.
    Type,
    /// The same value is there twice where it may be once.
    Duplicate,
    /// The field may not be set here.
    Forbidden,
    /// The kind has no such field.
    Unknown,
}

/// One thing found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field it is about.
    pub path: FieldPath,
    /// What class of mistake it is.
    pub reason: Reason,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.0.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Everything found in one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// These refuse the object.
    pub errors: Vec<Finding>,
    /// These are told, and the object is taken.
    pub warnings: Vec<Finding>,
}

/// Every error of one object; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<Finding>);

impl FieldErrors {
    /// One error.
    pub fn one(path: FieldPath, reason: Reason, message: impl Into<String>) -> Self {
        Self(vec![Finding { path, reason, message: message.into() }])
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FieldErrors {}
