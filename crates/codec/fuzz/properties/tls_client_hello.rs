//! Whatever a TLS client sends first: nothing panics, and an answer does not depend on how the bytes arrived.

use codec::tls_client_hello::ClientHelloParser;

pub fn holds(data: &[u8]) {
    let Some((cut, input)) = data.split_first() else { return };
    let first = &input[..usize::from(*cut) % (input.len() + 1)];
    let mut parser = ClientHelloParser::new();
    let early = parser.parse(first);
    let late = parser.parse(input);
    let whole = ClientHelloParser::new().parse(input);
    // An answer is final, whatever follows it.
    assert_eq!(if let Ok(None) = early { late } else { early }, whole);
}
