//! The two ports for plain bytes, without a protocol.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::settings::Settings;

/// Sends every byte back. A chunk that is exactly `who\n` is answered with
/// `POD VERSION\n`, so that a test sees which instance a connection reached.
pub async fn echo(mut stream: TcpStream, settings: &Settings) -> io::Result<()> {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let read = stream.read(&mut chunk).await?;
        match chunk.get(..read) {
            None | Some([]) => return stream.shutdown().await,
            Some(b"who\n") => {
                stream
                    .write_all(format!("{} {}\n", settings.pod, settings.version).as_bytes())
                    .await?;
            }
            Some(data) => stream.write_all(data).await?,
        }
    }
}

/// Speaks first, as SMTP and MySQL do, then echoes.
pub async fn banner(mut stream: TcpStream, settings: &Settings) -> io::Result<()> {
    stream
        .write_all(format!("220 {} {} ready\r\n", settings.pod, settings.version).as_bytes())
        .await?;
    echo(stream, settings).await
}
