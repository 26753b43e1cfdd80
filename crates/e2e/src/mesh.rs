//! A whole mesh: `outrigger up` over a directory of YAML.
