//! A directory of YAML as a source of objects.
