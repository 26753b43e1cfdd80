//! The fuzz targets without a fuzzer: every seed, and mutations of the seeds, a fixed number from a fixed start, so that a failure
//! comes again. `cargo test -p codec --test fuzz -- --ignored` tries three hundred times as many, which takes minutes.
#![allow(missing_docs, clippy::print_stdout)]

use std::path::Path;

#[path = "../fuzz/properties/hpack_decode.rs"]
mod hpack_decode;
#[path = "../fuzz/properties/hpack_roundtrip.rs"]
mod hpack_roundtrip;
#[path = "../fuzz/properties/http1_client.rs"]
mod http1_client;
#[path = "../fuzz/properties/http1_server.rs"]
mod http1_server;
#[path = "../fuzz/properties/http2_client_frames.rs"]
mod http2_client_frames;
#[path = "../fuzz/properties/http2_program.rs"]
mod http2_program;
#[path = "../fuzz/properties/http2_server_frames.rs"]
mod http2_server_frames;
#[path = "../fuzz/properties/tls_client_hello.rs"]
mod tls_client_hello;

/// Mutations in the ordinary test run.
const FEW: u32 = 10_000;
const MANY: u32 = 300 * FEW;

macro_rules! targets {
    ($($target:ident,)*) => {
        $(
            mod $target {
                #[test]
                fn holds() -> std::io::Result<()> {
                    super::run(stringify!($target), super::super::$target::holds, super::FEW)
                }

                #[test]
                #[ignore = "takes minutes"]
                fn holds_for_long() -> std::io::Result<()> {
                    super::run(stringify!($target), super::super::$target::holds, super::MANY)
                }
            }
        )*
    };
}

mod seeded {
    use super::run;
    use super::{FEW, MANY};

    targets! {
        hpack_decode,
        hpack_roundtrip,
        http1_client,
        http1_server,
        http2_client_frames,
        http2_server_frames,
        tls_client_hello,
    }
}

fn run(target: &str, holds: fn(&[u8]), mutations: u32) -> std::io::Result<()> {
    let seeds = seeds(target)?;
    seeds.iter().for_each(|seed| holds(seed));
    let mut mutator = Mutator { state: 0x9e37_79b9_7f4a_7c15, seeds: &seeds };
    for _ in 0..mutations {
        let input = mutator.next_input();
        // What fails is printed, so that it can become a seed.
        let shown = Shown(&input);
        holds(&input);
        std::mem::forget(shown);
    }
    Ok(())
}

fn seeds(target: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
    files.sort();
    assert!(!files.is_empty(), "no seeds in {}", folder.display());
    files.iter().map(std::fs::read).collect()
}

/// Prints the input when a panic passes by.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        println!("failed on {:02x?}", self.0);
    }
}

/// Makes inputs out of seeds, always the same ones.
struct Mutator<'a> {
    state: u64,
    seeds: &'a [Vec<u8>],
}

impl Mutator<'_> {
    /// A number below the bound (xorshift64*).
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        start..start + self.below((len - start).min(64) + 1)
    }

    fn next_input(&mut self) -> Vec<u8> {
        const TELLING: [u8; 16] = *b"\0\x01\x7f\x80\xff\x20\r\n:;,=/0 \x3f";

        let mut input = self.seeds[self.below(self.seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(input.len());
            match self.below(7) {
                0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                1 if !input.is_empty() => input[at] = TELLING[self.below(TELLING.len())],
                2 if !input.is_empty() => {
                    input[at] = input[at].wrapping_add(self.below(9) as u8).wrapping_sub(4)
                }
                3 => input.insert(at, self.below(256) as u8),
                4 => {
                    let range = self.range(input.len());
                    input.drain(range);
                }
                5 => {
                    let range = self.range(input.len());
                    let copy = input[range].to_vec();
                    input.splice(at..at, copy);
                }
                _ => {
                    let other = &self.seeds[self.below(self.seeds.len())];
                    let range = self.range(other.len());
                    let copy = other[range].to_vec();
                    input.splice(at..at, copy);
                }
            }
            input.truncate(4096);
        }
        input
    }
}
