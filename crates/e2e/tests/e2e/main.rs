//! The whole-process tests, in one binary so that they link once.

mod bootstrap;
mod http1_inputs;
mod proxy_smoke;
