//! A websocket that gives back what it gets (RFC 6455), both ends of it.
//!
//! Just enough to prove that an upgrade survives the mesh: text and binary of at
//! most 64 KiB, ping, close; no extensions, no fragments.

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, StatusCode, header};
use hyper::{Request, Response, body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::response::{self, Body};

/// Longest frame that either end takes.
const FRAME_LIMIT: u64 = 64 * 1024;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// True when the request asks for a websocket over HTTP/1.1.
pub fn is_handshake<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && request.headers().contains_key(header::SEC_WEBSOCKET_KEY)
}

/// Answers 101 and echoes in the background until the peer closes.
pub fn answer(mut request: Request<Incoming>) -> Response<Body> {
    let Some(Ok(accept)) = request
        .headers()
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| accept_of(key.as_bytes()).parse::<HeaderValue>())
    else {
        return response::text(StatusCode::BAD_REQUEST, "no usable sec-websocket-key\n");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let _ = echo(upgraded).await;
        }
    });
    let mut response = response::text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(upgraded: Upgraded) -> anyhow::Result<()> {
    let mut stream = TokioIo::new(upgraded);
    loop {
        let (opcode, payload) = read_frame(&mut stream).await?;
        match opcode {
            Opcode::Ping => write_frame(&mut stream, Opcode::Pong, &payload, None).await?,
            Opcode::Pong => {}
            Opcode::Close => return write_frame(&mut stream, Opcode::Close, &payload, None).await,
            Opcode::Text | Opcode::Binary => {
                write_frame(&mut stream, opcode, &payload, None).await?
            }
        }
    }
}

/// Reads one whole frame, unmasked.
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
) -> anyhow::Result<(Opcode, Vec<u8>)> {
    let first = stream.read_u8().await.context("read a frame")?;
    let second = stream.read_u8().await?;
    ensure!(first & 0x80 != 0, "fragmented frames are not spoken here");
    let opcode = match first & 0x0f {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => bail!("unknown opcode {other}"),
    };
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    ensure!(
        length <= FRAME_LIMIT,
        "a frame of {length} bytes is over {FRAME_LIMIT}"
    );
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    apply(mask, &mut payload);
    Ok((opcode, payload))
}

/// Writes one whole frame; clients must mask, servers must not.
pub async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    opcode: Opcode,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) -> anyhow::Result<()> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode as u8];
    match u16::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.push(masked | short as u8),
        Ok(medium) => {
            frame.push(masked | 126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask.into_iter().flatten());
    let start = frame.len();
    frame.extend_from_slice(payload);
    apply(
        mask.unwrap_or_default(),
        frame.get_mut(start..).unwrap_or_default(),
    );
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The `sec-websocket-accept` that proves the server read `key`.
pub fn accept_of(key: &[u8]) -> String {
    BASE64_STANDARD.encode(sha1(
        &[key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat(),
    ))
}

/// SHA-1, which the handshake demands and nothing else here should use.
fn sha1(input: &[u8]) -> [u8; 20] {
    let mut padded = input.to_vec();
    padded.push(0x80);
    // The last eight bytes of the last block hold the length in bits.
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(input.len() as u64 * 8).to_be_bytes());

    let mut state = [
        0x6745_2301_u32,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mix, constant) = match i {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mix)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (out, word) in digest.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    digest
}
