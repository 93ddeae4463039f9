//! Connects standard input and output with a Unix socket: the far end of QEMU's forward of the metadata address.

use std::io;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Carries bytes both ways until both sides are done.
pub async fn forward(socket: &Path) -> io::Result<()> {
    pump(socket, tokio::io::stdin(), tokio::io::stdout()).await
}

async fn pump(
    socket: &Path,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut reader, mut writer) = UnixStream::connect(socket).await?.into_split();
    let there = async {
        tokio::io::copy(&mut input, &mut writer).await?;
        writer.shutdown().await
    };
    let back = async {
        tokio::io::copy(&mut reader, &mut output).await?;
        output.flush().await
    };
    // When the service has closed, what the guest may still send is of no use to anybody.
    tokio::pin!(there, back);
    tokio::select! {
        done = &mut back => done,
        done = &mut there => { done?; back.await }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_is_passed_on() {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("service");
        let listener = UnixListener::bind(&socket).expect("bind");
        let service = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("client");
            let mut request = [0; 4];
            stream.read_exact(&mut request).await.expect("request");
            stream.write_all(b"answer to ").await.expect("write");
            stream.write_all(&request).await.expect("write");
        });
        let (mut guest, pipe) = duplex(64);
        let (input, output) = tokio::io::split(pipe);
        guest.write_all(b"ping").await.expect("write");
        pump(&socket, input, output).await.expect("pumped");
        service.await.expect("service");
        let mut answer = [0; 14];
        guest.read_exact(&mut answer).await.expect("read");
        assert_eq!(&answer, b"answer to ping");
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_an_error() {
        let (_guest, pipe) = duplex(64);
        let (input, output) = tokio::io::split(pipe);
        assert!(pump(Path::new("/nonexistent/socket"), input, output).await.is_err());
    }
}
