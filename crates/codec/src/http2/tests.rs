//! The codecs against frames by hand, and against each other.
