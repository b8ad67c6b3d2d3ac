//! A log as the messages of a WebSocket: what browsers and some client libraries ask for.
//!
//! Guarantees  a message is at most [`CHUNK_BYTES_MAX`]; the log is read no faster than the client takes it, and no longer
//!             than the client is there
//! Source: Kubernetes' WebSocket subprotocols `binary.k8s.io` and `base64.binary.k8s.io`

use std::pin::pin;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::{Error, Message};
use windlass_stdx::BoxError;

use super::channel::CHUNK_BYTES_MAX;
use super::negotiate::LogForm;
use super::websocket;

/// Sends the log until it ends or the client is gone.
pub(super) async fn serve<S, L>(io: S, form: LogForm, log: L)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    L: Stream<Item = Result<Bytes, BoxError>>,
{
    let (mut sink, mut source) = websocket::open(io).await.split();
    let sending = async {
        let mut log = pin!(log);
        while let Some(chunk) = log.next().await {
            let mut chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::warn!(%error, "a log could not be read to its end");
                    break;
                }
            };
            while !chunk.is_empty() {
                let part = chunk.split_to(chunk.len().min(CHUNK_BYTES_MAX));
                sink.send(message(form, part)).await?;
            }
        }
        sink.close().await
    };
    // Reading answers pings and tells when the client is gone; what it says does not matter.
    let listening = async {
        while let Some(Ok(said)) = source.next().await {
            if said.is_close() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        sent = sending => match sent {
            Ok(()) | Err(Error::ConnectionClosed) => {}
            Err(error) => tracing::debug!(%error, "a client did not take its log"),
        },
        () = listening => {}
    }
}

fn message(form: LogForm, part: Bytes) -> Message {
    match form {
        LogForm::Binary => Message::Binary(part),
        LogForm::Base64 => Message::text(BASE64.encode(part)),
    }
}

#[cfg(test)]
mod tests {
    use super::{LogForm, serve};
    use bytes::Bytes;
    use futures::StreamExt;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    async fn sent(form: LogForm, chunks: Vec<Bytes>) -> Vec<Message> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let log = futures::stream::iter(chunks.into_iter().map(Ok));
        let serving = tokio::spawn(serve(ours, form, log));
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let messages = client.filter_map(async |message| message.ok()).collect().await;
        serving.await.expect("serving does not panic");
        messages
    }

    #[tokio::test]
    async fn a_log_is_cut_into_messages_and_then_the_socket_closes() {
        let long = Bytes::from(vec![b'x'; super::CHUNK_BYTES_MAX + 1]);
        let found = sent(LogForm::Binary, vec![Bytes::from("one\n"), long]).await;
        let lengths: Vec<usize> = found.iter().filter(|message| message.is_binary()).map(Message::len).collect();
        assert_eq!(lengths, [4, super::CHUNK_BYTES_MAX, 1]);
        assert!(found.last().is_some_and(Message::is_close), "{found:?}");
    }

    #[tokio::test]
    async fn a_client_that_takes_only_text_gets_base64() {
        let found = sent(LogForm::Base64, vec![Bytes::from("one\n")]).await;
        assert_eq!(found[0], Message::text("b25lCg=="));
    }
}
