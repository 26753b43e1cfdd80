//! Step 2: listener filters. They look at the first bytes of a connection, without taking any, and find out what
//! step 3 chooses a chain by: whether it is TLS, for which server name, with which protocols.

use codec::sniff::{Sniffed, sniff};
use codec::tls_client_hello::{ClientHelloParser, HelloError};

use super::config::ListenerFilter;

/// A connection whose first bytes are being looked at.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The listener filter at work.
    at: usize,
    hello: ClientHelloParser,
    found: Findings,
    /// Filters may wait for bytes until then.
    pub deadline_ns: u64,
}

/// What the filters have found out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Findings {
    /// It is TLS.
    pub is_tls: bool,
    /// SNI, lower case.
    pub server_name: Option<String>,
    /// ALPN as offered, or the plaintext protocol that http_inspector saw.
    pub application_protocols: Vec<Vec<u8>>,
}

/// What looking came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Inspected {
    /// All filters are done.
    Done,
    /// More bytes are needed.
    NeedInput,
    /// The connection is not to be served.
    Refused(&'static str),
}

impl Inspection {
    /// Filters may wait until `deadline_ns`.
    pub fn new(deadline_ns: u64) -> Self {
        Self { deadline_ns, ..Self::default() }
    }

    /// What has been found so far.
    pub fn findings(&self) -> &Findings {
        &self.found
    }

    /// Looks at everything that has come.
    pub fn look(&mut self, filters: &[ListenerFilter], input: &[u8]) -> Inspected {
        while let Some(filter) = filters.get(self.at) {
            let result = match filter {
                ListenerFilter::TlsInspector { max_client_hello_size } => {
                    self.look_for_hello(input, *max_client_hello_size as usize)
                }
                ListenerFilter::HttpInspector => self.look_for_http(input),
            };
            match result {
                Inspected::Done => self.at += 1,
                other => return other,
            }
        }
        Inspected::Done
    }

    fn look_for_hello(&mut self, input: &[u8], max: usize) -> Inspected {
        if input.is_empty() {
            return Inspected::NeedInput;
        }
        match self.hello.parse(input) {
            Ok(Some(hello)) => {
                self.found = Findings {
                    is_tls: true,
                    server_name: hello.server_name,
                    application_protocols: hello.alpn,
                };
                Inspected::Done
            }
            Ok(None) if input.len() > max => Inspected::Refused("client hello is too large"),
            Ok(None) => Inspected::NeedInput,
            Err(HelloError::TooLarge) => Inspected::Refused("client hello is too large"),
            // As Envoy: what is no hello is no TLS, and goes to a plaintext chain.
            Err(HelloError::NotTls | HelloError::Malformed(_)) => Inspected::Done,
        }
    }

    fn look_for_http(&mut self, input: &[u8]) -> Inspected {
        if self.found.is_tls {
            return Inspected::Done;
        }
        let protocol: &[u8] = match sniff(input) {
            Sniffed::NeedInput => return Inspected::NeedInput,
            Sniffed::Http2 => b"h2c",
            Sniffed::Http1(codec::headers::Version::Http10) => b"http/1.0",
            Sniffed::Http1(_) => b"http/1.1",
            Sniffed::Tls | Sniffed::Unknown => return Inspected::Done,
        };
        self.found.application_protocols = vec![protocol.to_vec()];
        Inspected::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TLS: ListenerFilter = ListenerFilter::TlsInspector { max_client_hello_size: 16_384 };

    fn look(filters: &[ListenerFilter], input: &[u8]) -> (Inspected, Findings) {
        let mut inspection = Inspection::new(u64::MAX);
        let result = inspection.look(filters, input);
        (result, inspection.findings().clone())
    }

    #[test]
    fn plaintext_protocols() {
        let both = [TLS, ListenerFilter::HttpInspector];
        let cases: &[(&[u8], Inspected, &[&[u8]])] = &[
            (b"", Inspected::NeedInput, &[]),
            (b"GET / HTTP/1.1\r\n", Inspected::Done, &[b"http/1.1"]),
            (b"GET / HTTP/1.0\r\n", Inspected::Done, &[b"http/1.0"]),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Inspected::Done, &[b"h2c"]),
            (b"GET /", Inspected::NeedInput, &[]),
            (b"\x00\x01\x02\x03", Inspected::Done, &[]),
        ];
        for (input, expected, protocols) in cases {
            let (result, found) = look(&both, input);
            assert_eq!(result, *expected, "{input:?}");
            assert_eq!(found.application_protocols, *protocols, "{input:?}");
            assert!(!found.is_tls);
        }
    }

    #[test]
    fn a_hello_byte_by_byte() {
        let config = identity::tls::client_config(&identity::tls::ClientOptions {
            parameters: identity::tls::Parameters {
                alpn: vec![b"istio".to_vec(), b"h2".to_vec()],
                ..Default::default()
            },
            ..Default::default()
        })
        .unwrap();
        let name = "Reviews.Example".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut inspection = Inspection::new(u64::MAX);
        let both = [TLS, ListenerFilter::HttpInspector];
        for end in 0..hello.len() {
            assert_eq!(inspection.look(&both, &hello[..end]), Inspected::NeedInput, "{end}");
        }
        assert_eq!(inspection.look(&both, &hello), Inspected::Done);
        let found = inspection.findings();
        assert!(found.is_tls);
        assert_eq!(found.server_name.as_deref(), Some("reviews.example"));
        assert_eq!(found.application_protocols, [b"istio".to_vec(), b"h2".to_vec()]);
        let small = [ListenerFilter::TlsInspector { max_client_hello_size: 100 }];
        assert!(matches!(look(&small, &hello[..hello.len() - 1]).0, Inspected::Refused(_)));
    }
}
