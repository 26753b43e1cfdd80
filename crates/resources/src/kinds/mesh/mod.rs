//! Configuration of the mesh that is no kind of its own: text in a ConfigMap.

pub mod mesh_config;
