#![no_main]

#[path = "../properties/http2_program.rs"]
mod http2_program;
#[path = "../properties/http2_server_frames.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
