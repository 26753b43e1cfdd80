//! What HTTP/2 has and HTTP/1 answers without a thought, the same for the codecs of both ends.

/// Gives an enum with a variant `Http2` the methods that matter where many streams share a connection.
macro_rules! methods {
    ($codec:ident) => {
        /// What matters where many streams share a connection.
        impl $codec {
            /// How many body bytes `encode_data` may be given for a stream now; more of them wait for [`Event::Room`]. Of a stream
            /// that takes nothing more any number is dropped. HTTP/1: any number.
            #[inline]
            pub fn send_room(&self, stream: StreamId) -> usize {
                match self {
                    $codec::Http2(codec) => codec.send_room(stream),
                    _ => usize::MAX,
                }
            }

            /// As `send_room`, for all streams of the connection together.
            pub fn connection_room(&self) -> usize {
                match self {
                    $codec::Http2(codec) => codec.connection_room(),
                    _ => usize::MAX,
                }
            }

            /// So many received body bytes of a stream have left on the other side, or were thrown away: the peer may send as many
            /// again. Of a stream that is over nothing need be said.
            #[inline]
            pub fn passed_on(&mut self, stream: StreamId, len: usize) {
                if let $codec::Http2(codec) = self {
                    codec.passed_on(stream, len);
                }
            }

            /// Something waits for `write_control`.
            #[inline]
            pub fn has_control(&self) -> bool {
                matches!(self, $codec::Http2(codec) if codec.has_control())
            }

            /// Writes what decoding and passing on have made necessary: SETTINGS, acknowledgements, resets, openings of windows.
            #[inline]
            pub fn write_control(&mut self, out: &mut Vec<u8>) {
                if let $codec::Http2(codec) = self {
                    codec.write_control(out);
                }
            }

            /// Asks the peer for a sign of life, which comes as [`Event::Pong`]. HTTP/1 cannot ask.
            pub fn ping(&mut self, out: &mut Vec<u8>) {
                if let $codec::Http2(codec) = self {
                    codec.ping(out);
                }
            }

            /// To be called before the bytes of a read are decoded: the time on any monotonic clock, and how many of the bytes
            /// written so far have not left.
            #[inline]
            pub fn observe(&mut self, now_ns: u64, unsent: usize) {
                if let $codec::Http2(codec) = self {
                    codec.observe(now_ns, unsent);
                }
            }

            /// What is to be counted since the last call, if anything.
            #[inline]
            pub fn take_counts(&mut self) -> Option<$crate::http2::Counts> {
                match self {
                    $codec::Http2(codec) => codec.take_counts(),
                    _ => None,
                }
            }

            /// As `reset`, with a reason.
            pub fn reset_with(&mut self, stream: StreamId, code: ResetCode, out: &mut Vec<u8>) {
                match self {
                    $codec::Http2(codec) => codec.reset_with(stream, code, out),
                    _ => self.reset(stream, out),
                }
            }
        }
    };
}

pub(crate) use methods;
