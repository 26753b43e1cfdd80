//! What a tonic client tries on the service; `python/interop.py` tries the same with grpcio.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::wait::PATIENCE;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::{Bytes, http};
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::bytes_codec::BytesCodec;

const CHUNK: usize = 64 * 1024;

type Case = fn(Client) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

const CASES: &[(&str, Case)] = &[
    ("small and empty messages", |client| Box::pin(small_and_empty_messages(client))),
    ("big messages", |client| Box::pin(big_messages(client))),
    ("server stream", |client| Box::pin(server_stream(client))),
    ("client stream", |client| Box::pin(client_stream(client))),
    ("ping-pong", |client| Box::pin(ping_pong(client))),
    ("metadata", |client| Box::pin(metadata(client))),
    ("statuses", |client| Box::pin(statuses(client))),
    ("status after messages", |client| Box::pin(status_after_messages(client))),
    ("unknown method", |client| Box::pin(unknown_method(client))),
    ("cancellation", |client| Box::pin(cancellation(client))),
    ("deadline", |client| Box::pin(deadline(client))),
    ("slow reader", |client| Box::pin(slow_reader(client))),
    ("slow server", |client| Box::pin(slow_server(client))),
    ("many at once", |client| Box::pin(many_at_once(client))),
];

/// Runs every case against the server or proxy at `address`; names all that fail.
pub fn run(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let outcome = runtime.block_on(async {
            let client = Client::connect(address).await?;
            match tokio::time::timeout(2 * PATIENCE, case(client)).await {
                Ok(outcome) => outcome,
                Err(_) => bail!("hangs"),
            }
        });
        if let Err(error) = outcome {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(failed.is_empty(), "tonic's client:\n{}", failed.join("\n"));
    Ok(())
}

#[derive(Clone)]
struct Client(Grpc<Channel>);

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let grpc = Grpc::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Ok(Self(grpc))
    }

    async fn unary(
        &self,
        method: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        let mut grpc = self.0.clone();
        ready(&mut grpc).await?;
        grpc.unary(request, path(method), BytesCodec).await
    }

    async fn echo(&self, message: Bytes) -> Result<Bytes, Status> {
        Ok(self.unary("Unary", Request::new(message)).await?.into_inner())
    }

    async fn download(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        let mut grpc = self.0.clone();
        ready(&mut grpc).await?;
        grpc.server_streaming(request, path("Download"), BytesCodec).await
    }

    async fn upload(
        &self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Bytes, Status> {
        let mut grpc = self.0.clone();
        ready(&mut grpc).await?;
        let request = Request::new(messages);
        Ok(grpc.client_streaming(request, path("Upload"), BytesCodec).await?.into_inner())
    }

    async fn chat(
        &self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = self.0.clone();
        ready(&mut grpc).await?;
        let request = Request::new(messages);
        Ok(grpc.streaming(request, path("Chat"), BytesCodec).await?.into_inner())
    }

    /// `Hanging`, `Cancelled` or `Written`.
    async fn count(&self, method: &str) -> Result<u64> {
        let answer = self.unary(method, Request::new(Bytes::new())).await?.into_inner();
        Ok(std::str::from_utf8(&answer)?.parse()?)
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(format!("{error:?}")))
}

fn path(method: &str) -> http::uri::PathAndQuery {
    let path = format!("/interop.Test/{method}");
    http::uri::PathAndQuery::from_maybe_shared(path).unwrap_or_else(|_| panic!("{method}"))
}

fn asking(asked: &[(&'static str, &str)]) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from_static(b"x"));
    for (name, value) in asked {
        request.metadata_mut().append(*name, value.parse().unwrap_or_else(|_| panic!("{value}")));
    }
    request
}

async fn small_and_empty_messages(client: Client) -> Result<()> {
    for message in [Vec::new(), vec![b'x'], (0..=255).collect()] {
        let message = Bytes::from(message);
        ensure!(client.echo(message.clone()).await? == message);
    }
    Ok(())
}

async fn big_messages(client: Client) -> Result<()> {
    let message: Bytes = (0..=255).cycle().take(5 << 20).collect::<Vec<u8>>().into();
    ensure!(client.echo(message.clone()).await? == message, "5 MiB are not what they were");
    let answer = client.unary("Unary", asking(&[("x-size", "9437184")])).await?.into_inner();
    ensure!(answer.len() == 9 << 20, "{} bytes of 9 MiB", answer.len());
    Ok(())
}

async fn server_stream(client: Client) -> Result<()> {
    let answer = client.download(asking(&[("x-count", "100"), ("x-size", "65536")])).await?;
    let sizes = sizes(answer.into_inner()).await?;
    ensure!(sizes == [CHUNK; 100], "{sizes:?}");
    let nothing = client.download(asking(&[])).await?.into_inner();
    ensure!(self::sizes(nothing).await?.is_empty());
    Ok(())
}

async fn sizes(mut messages: Streaming<Bytes>) -> Result<Vec<usize>, Status> {
    let mut sizes = Vec::new();
    while let Some(message) = messages.message().await? {
        sizes.push(message.len());
    }
    Ok(sizes)
}

async fn client_stream(client: Client) -> Result<()> {
    let messages = tokio_stream::iter(vec![Bytes::from(vec![0; CHUNK]); 100]);
    ensure!(client.upload(messages).await? == "100 6553600");
    ensure!(client.upload(tokio_stream::empty()).await? == "0 0");
    Ok(())
}

/// Each side waits for the other's message: whoever gathers messages hangs.
async fn ping_pong(client: Client) -> Result<()> {
    let (say, said) = tokio::sync::mpsc::channel(1);
    say.send(Bytes::from_static(b"0")).await?;
    let mut answers = client.chat(ReceiverStream::new(said)).await?;
    for number in 0..50 {
        let answer = answers.message().await?.context("the stream ended")?;
        ensure!(answer == number.to_string(), "{answer:?} to {number}");
        say.send(Bytes::from((number + 1).to_string())).await?;
    }
    drop(say);
    ensure!(answers.message().await?.context("the stream ended")? == "50");
    ensure!(answers.message().await?.is_none());
    Ok(())
}

async fn metadata(client: Client) -> Result<()> {
    let all: Vec<u8> = (0..=255).collect();
    let mut request = asking(&[("x-echo", "one"), ("x-echo", "two")]);
    request.metadata_mut().insert_bin("x-echo-bin", BinaryMetadataValue::from_bytes(&all));
    request.metadata_mut().insert_bin("x-trailer-bin", BinaryMetadataValue::from_bytes(b"\0\xff"));
    let answer = client.download(request).await?;
    let echoed: Vec<_> = answer.metadata().get_all("x-echo").iter().collect();
    let echoed: Vec<&str> =
        echoed.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    let echoed: Vec<&str> = echoed.into_iter().map(str::trim).collect();
    ensure!(echoed == ["one", "two"], "x-echo: {echoed:?}");
    ensure!(binary(answer.metadata(), "x-echo-bin")? == all);
    let mut messages = answer.into_inner();
    ensure!(messages.message().await?.is_none());
    let trailers = messages.trailers().await?.context("no trailers")?;
    ensure!(binary(&trailers, "x-trailer-bin")? == &b"\0\xff"[..]);
    Ok(())
}

fn binary(metadata: &MetadataMap, name: &str) -> Result<Bytes> {
    Ok(metadata.get_bin(name).with_context(|| format!("no {name}"))?.to_bytes()?)
}

async fn statuses(client: Client) -> Result<()> {
    for code in 1..=16 {
        let text = format!("fails: 100 % µ\n{code}");
        let mut request = asking(&[("x-status", &code.to_string())]);
        let value = BinaryMetadataValue::from_bytes(text.as_bytes());
        request.metadata_mut().insert_bin("x-message-bin", value);
        let status = client.unary("Unary", request).await.err().context("no error")?;
        ensure!(status.code() == Code::from_i32(code), "{status:?}, not {code}");
        ensure!(status.message() == text, "{:?}", status.message());
    }
    Ok(())
}

async fn status_after_messages(client: Client) -> Result<()> {
    let mut request = asking(&[("x-count", "3"), ("x-size", "10"), ("x-status", "9")]);
    request.metadata_mut().insert_bin("x-trailer-bin", BinaryMetadataValue::from_bytes(b"t"));
    let mut messages = client.download(request).await?.into_inner();
    for _ in 0..3 {
        ensure!(messages.message().await?.context("too few messages")?.len() == 10);
    }
    let status = messages.message().await.err().context("no error")?;
    ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    ensure!(binary(status.metadata(), "x-trailer-bin")? == "t");
    Ok(())
}

async fn unknown_method(client: Client) -> Result<()> {
    let status = client.unary("Nothing", asking(&[])).await.err().context("no error")?;
    ensure!(status.code() == Code::Unimplemented, "{status:?}");
    Ok(())
}

async fn cancellation(client: Client) -> Result<()> {
    let (cancelled, hanging) = (client.count("Cancelled").await?, client.count("Hanging").await?);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.unary("Hang", asking(&[])).await }
    });
    wait_for_more(&client, "Hanging", hanging).await?;
    call.abort();
    wait_for_more(&client, "Cancelled", cancelled).await
}

async fn deadline(client: Client) -> Result<()> {
    let before = client.count("Cancelled").await?;
    let mut request = asking(&[]);
    request.set_timeout(Duration::from_millis(300));
    let status = client.unary("Hang", request).await.err().context("no error")?;
    // tonic's own clock says Cancelled, what comes over the wire says DeadlineExceeded.
    ensure!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    wait_for_more(&client, "Cancelled", before).await
}

async fn wait_for_more(client: &Client, counted: &str, before: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while client.count(counted).await? == before {
        ensure!(Instant::now() < deadline, "the server never counts one more {counted}");
        pause().await;
    }
    Ok(())
}

/// A reader that stops stops its writer, and nobody else on the connection.
async fn slow_reader(client: Client) -> Result<()> {
    const COUNT: usize = 1024;
    let request = asking(&[("x-count", &COUNT.to_string()), ("x-size", &CHUNK.to_string())]);
    let mut messages = client.download(request).await?.into_inner();
    messages.message().await?.context("no message")?;
    let mut written = client.count("Written").await?;
    let mut same_for = 0;
    while same_for < 10 {
        pause().await;
        let now = client.count("Written").await?;
        same_for = if now == written { same_for + 1 } else { 0 };
        written = now;
    }
    let under_way = usize::try_from(written)?;
    ensure!(under_way < COUNT * CHUNK / 2, "{under_way} bytes to a reader that has stopped");
    ensure!(client.echo(Bytes::from_static(b"x")).await? == "x", "another stream");
    let rest: usize = sizes(messages).await?.iter().sum();
    ensure!(rest == (COUNT - 1) * CHUNK, "{rest} bytes after the first message");
    Ok(())
}

/// A server that does not read its stream stops whoever writes to it, and nobody else on the connection.
async fn slow_server(client: Client) -> Result<()> {
    // More than what all windows between take, there and back.
    const COUNT: usize = 1024;
    let (say, said) = tokio::sync::mpsc::channel(1);
    // Chat reads on only as its answers are read, which nobody does.
    let mut answers = client.chat(ReceiverStream::new(said)).await?;
    let chunk = Bytes::from(vec![0; CHUNK]);
    let mut sent = 0;
    while sent < COUNT {
        let next = tokio::time::timeout(Duration::from_millis(300), say.send(chunk.clone())).await;
        match next {
            Ok(taken) => taken?,
            Err(_) => break,
        }
        sent += 1;
    }
    ensure!(sent < COUNT, "{sent} messages went to a server that does not read");
    ensure!(client.echo(Bytes::from_static(b"x")).await? == "x", "another stream");
    drop(say);
    let mut back = 0;
    while let Some(message) = answers.message().await? {
        ensure!(message.len() == CHUNK);
        back += 1;
    }
    ensure!(back == sent, "{back} of {sent} messages came back");
    Ok(())
}

async fn many_at_once(client: Client) -> Result<()> {
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..500 {
        let client = client.clone();
        calls.spawn(async move {
            let message = Bytes::from(number.to_string());
            Ok::<_, Status>(client.echo(message.clone()).await? == message)
        });
    }
    while let Some(done) = calls.join_next().await {
        ensure!(done??, "an answer to another question");
    }
    Ok(())
}

/// Between two looks at a condition.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
