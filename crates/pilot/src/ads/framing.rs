//! A stream of responses as gRPC puts it on the wire, each in an allocation of its own.
//!
//! tonic's encoder writes into a buffer that it keeps for the stream's life, with the room of the biggest message. With a
//! stream for every proxy of a mesh that is most of the control plane's memory, so here a message's room is given back
//! once the message is sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::body::{Body as HttpBody, Frame};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;

/// Compressed or not, and the length, before each message.
const PREFIX: usize = 5;

/// The answer to a streaming call: what comes through `messages`, then how it ended.
pub fn response<M: Message + 'static>(
    messages: mpsc::Receiver<Result<M, Status>>,
) -> http::Response<Body> {
    let mut response = http::Response::new(Body::new(Messages { messages, has_ended: false }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

struct Messages<M> {
    messages: mpsc::Receiver<Result<M, Status>>,
    has_ended: bool,
}

impl<M: Message> HttpBody for Messages<M> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.messages.poll_recv(cx)) {
            Some(Ok(message)) => Ok(Frame::data(framed(&message))),
            Some(Err(status)) => self.end(&status),
            None => self.end(&Status::ok("")),
        };
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

impl<M> Messages<M> {
    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.has_ended = true;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

/// A message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + len);
    bytes.put_u8(0);
    // Responses are made in parts far below 4 GiB.
    bytes.put_u32(len as u32);
    // Encoding fails where there is no room, and there is.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn messages_and_the_end_are_framed() {
        let (sender, messages) = mpsc::channel(4);
        sender.send(Ok("hello".to_owned())).await.unwrap();
        sender.send(Err(Status::unavailable("no more"))).await.unwrap();
        let mut body = Box::pin(Messages { messages, has_ended: false });
        let mut frame = async || poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
        let data = frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&data[..], b"\0\0\0\0\x07\x0a\x05hello");
        let trailers = frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(trailers["grpc-message"], "no%20more");
        assert!(frame().await.is_none());
    }
}
