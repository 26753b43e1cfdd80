//! What the two ends of a connection have in common: the methods of both codecs that are about any stream, written once.

/// Gives a codec with a `connection` the methods of both ends.
macro_rules! methods {
    ($codec:ident) => {
        /// What both ends can do.
        impl $codec {
            /// The peer will send nothing more. To be called until it says `NeedInput`: streams whose messages are cut off are named.
            pub fn end_of_input(&mut self) -> Event {
                self.connection.end_of_input()
            }

            /// Writes body bytes, no more of them than [`send_room`](Self::send_room) says.
            pub fn encode_data(
                &mut self,
                stream: StreamId,
                data: &[u8],
                end_stream: bool,
                out: &mut Vec<u8>,
            ) {
                self.connection.write_data(stream.0, data, end_stream, out);
            }

            /// As `encode_data`, for a caller that writes the body bytes itself, from where they lie: writes the head of one frame
            /// and says how many bytes must follow it. If those are not all, `begin_data` is to be called again for the rest.
            pub fn begin_data(
                &mut self,
                stream: StreamId,
                len: usize,
                end_stream: bool,
                out: &mut Vec<u8>,
            ) -> DataTail {
                self.connection.begin_data(stream.0, len, end_stream, out)
            }

            /// Writes trailers, which end the message.
            pub fn encode_trailers(
                &mut self,
                stream: StreamId,
                trailers: &Fields,
                out: &mut Vec<u8>,
            ) {
                self.connection.write_trailers(stream.0, trailers, out);
            }

            /// Gives up a stream and says why. One that is over already is let be.
            pub fn reset_with(&mut self, stream: StreamId, code: ResetCode, out: &mut Vec<u8>) {
                self.connection.write_reset(stream.0, code.into(), out);
            }

            /// How many body bytes `encode_data` may be given for a stream now; more of them wait for [`Event::Room`]. Of a stream that
            /// takes nothing more any number is dropped.
            #[inline]
            pub fn send_room(&self, stream: StreamId) -> usize {
                self.connection.send_room(stream.0)
            }

            /// As `send_room`, for all streams together.
            pub fn connection_room(&self) -> usize {
                self.connection.output.window.max(0) as usize
            }

            /// So many body bytes of a stream have left on the other side, or were thrown away: the peer may send as many again.
            /// Windows are opened by [`write_control`](Self::write_control), and only when it is worth a frame. What a stream
            /// holds when it ends, or is reset, counts as passed on.
            #[inline]
            pub fn passed_on(&mut self, stream: StreamId, len: usize) {
                self.connection.passed_on(stream.0, len);
            }

            /// Something waits for `write_control`.
            #[inline]
            pub fn has_control(&self) -> bool {
                self.connection.output.due
            }

            /// Writes what decoding and passing on have made necessary: our SETTINGS, acknowledgements, resets, windows.
            #[inline]
            pub fn write_control(&mut self, out: &mut Vec<u8>) {
                self.connection.write_control(out);
            }

            /// Asks the peer for a sign of life, which comes as [`Event::Pong`].
            pub fn ping(&mut self, out: &mut Vec<u8>) {
                self.connection.write_ping(out);
            }

            /// The time on any monotonic clock, and how many of the bytes written so far have not left: what limits of rates and
            /// of queues go by. To be called before the bytes of a read are decoded.
            pub fn observe(&mut self, now_ns: u64, unsent: usize) {
                self.connection.observe(now_ns, unsent);
            }

            /// What is to be counted since the last call, if anything.
            #[inline]
            pub fn take_counts(&mut self) -> Option<Counts> {
                self.connection.take_counts()
            }
        }
    };
}

pub(super) use methods;
