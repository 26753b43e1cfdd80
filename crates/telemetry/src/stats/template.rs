//! What a set of statistics consists of: a static table of fields, and typed handles to them.
//!
//! A set is declared once with [`stat_set!`](crate::stat_set) beside the feature that counts; the table costs no memory
//! per instance, so showing a statistic that is still zero is free.

use std::marker::PhantomData;

use super::histogram;

/// What a field measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// As a counter, but shown only once it is not zero: what most instances never need.
    Lazy,
    /// Goes up and down; summed over threads.
    Gauge,
    /// As a gauge, but shown only once it was written: what most instances never need.
    LazyGauge,
    /// Distribution of non-negative integers in that unit.
    Histogram(Unit),
    /// A family of counters that exist only once they are not zero; one per value.
    Family(Values),
}

/// The values of a family of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Values {
    /// HTTP status codes, tagged `envoy.response_code`.
    Codes(&'static [u16]),
    /// Classes of HTTP status codes, `1xx` to `5xx`, tagged `envoy.response_code_class`.
    Classes,
    /// Names, tagged with the first member.
    Names(&'static str, &'static [&'static str]),
}

impl Values {
    /// How many counters the family has.
    pub const fn len(self) -> usize {
        match self {
            Values::Codes(codes) => codes.len(),
            Values::Classes => 5,
            Values::Names(_, names) => names.len(),
        }
    }

    /// Whether the family is empty.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// The unit of a histogram's values. Prometheus output keeps Envoy's: the number as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// No unit, for example a count of requests per connection.
    Unspecified,
    /// Octets.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
}

/// One row of a [`Template`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Envoy's name below the scope, for example `upstream_cx_total`; for a family the part before the value.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
}

impl Field {
    /// How many 64-bit cells a thread needs for this field.
    pub const fn cells(self) -> usize {
        match self.kind {
            Kind::Counter | Kind::Lazy | Kind::Gauge | Kind::LazyGauge => 1,
            Kind::Histogram(_) => histogram::CELLS,
            Kind::Family(values) => values.len(),
        }
    }
}

/// The fields of one set, in the order of their cells.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    /// The rows.
    pub fields: &'static [Field],
}

impl Template {
    /// Cells before field number `index`.
    pub const fn offset(&self, index: usize) -> u16 {
        let mut at = 0;
        let mut i = 0;
        while i < index {
            at += self.fields[i].cells();
            i += 1;
        }
        at as u16
    }

    /// Cells of the whole set.
    pub const fn cells(&self) -> usize {
        self.offset(self.fields.len()) as usize
    }
}

/// A set of statistics; implemented by [`stat_set!`](crate::stat_set).
pub trait StatSet: 'static {
    /// The rows of the set.
    const TEMPLATE: &'static Template;
}

macro_rules! field_handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<S> {
            pub(super) cell: u16,
            set: PhantomData<fn() -> S>,
        }

        impl<S> $name<S> {
            /// Used by [`stat_set!`](crate::stat_set) alone: a handle to the field whose first cell is `cell`.
            #[doc(hidden)]
            pub const fn at(cell: u16) -> Self {
                Self { cell, set: PhantomData }
            }
        }

        impl<S> Clone for $name<S> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<S> Copy for $name<S> {}
    };
}

field_handle! {
    /// A counter of the set `S`.
    Counter
}
field_handle! {
    /// A gauge of the set `S`.
    Gauge
}
field_handle! {
    /// A histogram of the set `S`.
    Histogram
}
field_handle! {
    /// A family of counters of the set `S`; picked from by index of its values.
    Family
}

/// Declares a set of statistics: a type that implements [`StatSet`] with one typed constant per field.
///
/// ```
/// telemetry::stat_set! {
///     /// What a well is measured by.
///     pub struct Well {
///         BUCKETS = counter "buckets_total",
///         DEPTH = gauge "depth",
///         DRAW_TIME = histogram(Milliseconds) "draw_time",
///     }
/// }
/// let registry = telemetry::stats::Registry::default();
/// let scope = telemetry::stats::Scope::new().text("well").tag("envoy.well_name", "north");
/// let block = registry.block::<Well>(&scope);
/// let recorder = registry.recorder();
/// let well = recorder.local(&block);
/// well.inc(Well::BUCKETS);
/// well.record(Well::DRAW_TIME, 12);
/// assert_eq!(registry.counter_value("well.north.buckets_total"), Some(1));
/// ```
#[macro_export]
macro_rules! stat_set {
    ($(#[$doc:meta])* $vis:vis struct $set:ident { $($(#[$fdoc:meta])* $id:ident = $kind:ident $(($($arg:tt)*))? $name:literal),* $(,)? }) => {
        $(#[$doc])*
        $vis struct $set;

        const _: () = {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Index { $($id),* }
            static FIELDS: &[$crate::stats::Field] = &[$($crate::stats::Field {
                name: $name,
                kind: $crate::stat_set!(@kind $kind $(($($arg)*))?),
            }),*];
            const LAYOUT: $crate::stats::Template = $crate::stats::Template { fields: &[$($crate::stats::Field {
                name: $name,
                kind: $crate::stat_set!(@kind $kind $(($($arg)*))?),
            }),*] };
            static TEMPLATE: $crate::stats::Template = $crate::stats::Template { fields: FIELDS };

            impl $set {
                $(
                    #[doc = concat!("Envoy's `", $name, "`.")]
                    $(#[$fdoc])*
                    pub const $id: $crate::stat_set!(@handle $kind $set) =
                        <$crate::stat_set!(@handle $kind $set)>::at(LAYOUT.offset(Index::$id as usize));
                )*
            }

            impl $crate::stats::StatSet for $set {
                const TEMPLATE: &'static $crate::stats::Template = &TEMPLATE;
            }
        };
    };
    (@kind counter) => { $crate::stats::Kind::Counter };
    (@kind lazy) => { $crate::stats::Kind::Lazy };
    (@kind gauge) => { $crate::stats::Kind::Gauge };
    (@kind lazy_gauge) => { $crate::stats::Kind::LazyGauge };
    (@kind histogram($unit:ident)) => { $crate::stats::Kind::Histogram($crate::stats::Unit::$unit) };
    (@kind codes($codes:expr)) => { $crate::stats::Kind::Family($crate::stats::Values::Codes($codes)) };
    (@kind classes) => { $crate::stats::Kind::Family($crate::stats::Values::Classes) };
    (@kind names($tag:literal, $names:expr)) => { $crate::stats::Kind::Family($crate::stats::Values::Names($tag, $names)) };
    (@handle counter $set:ident) => { $crate::stats::Counter<$set> };
    (@handle lazy $set:ident) => { $crate::stats::Counter<$set> };
    (@handle gauge $set:ident) => { $crate::stats::Gauge<$set> };
    (@handle lazy_gauge $set:ident) => { $crate::stats::Gauge<$set> };
    (@handle histogram $set:ident) => { $crate::stats::Histogram<$set> };
    (@handle codes $set:ident) => { $crate::stats::Family<$set> };
    (@handle classes $set:ident) => { $crate::stats::Family<$set> };
    (@handle names $set:ident) => { $crate::stats::Family<$set> };
}
