//! The embedded API server: objects on one machine, without Kubernetes.
//!
//! * [`state_dir`] is the one directory in which a mesh keeps everything, locked and private;
//! * [`storage`] keeps objects in it, behind `resources::store::Store`;
//! * [`directory`] is a directory of YAML as a source of objects, with an inventory of what it owns;
//! * [`tokens`] signs and judges workload tokens with keys that live in the store;
//! * [`addresses`] gives workloads addresses of their own on this machine;
//! * [`registration`] makes what a workload that is run by hand needs: its group and, if none selects it, a Service;
//! * [`control_socket`] is how the mesh's owner talks to it from other processes.

pub mod addresses;
pub mod control_socket;
pub mod directory;
pub mod registration;
pub mod state_dir;
pub mod storage;
pub mod tokens;
