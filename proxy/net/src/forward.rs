//! Macros for wrappers of a connection: they forward those methods of `AsyncRead`, `AsyncWrite` and
//! `ChunkIo` that a wrapper does not change.
//!
//! A wrapper changes one half of a connection or only its end. Macros and no trait: the standard
//! traits are foreign, so no implementation of them for all wrappers is allowed.

/// Methods of `AsyncRead` of a wrapper whose reads are those of its field.
#[macro_export]
macro_rules! forward_read {
    ($inner:ident) => {
        fn poll_read(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            out: &mut ::tokio::io::ReadBuf<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            ::std::pin::Pin::new(&mut self.get_mut().$inner).poll_read(cx, out)
        }
    };
}

/// Methods of `AsyncWrite` but the last one of a wrapper whose writes are those of its field.
#[macro_export]
macro_rules! forward_write {
    ($inner:ident) => {
        fn poll_write(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            data: &[u8],
        ) -> ::std::task::Poll<::std::io::Result<usize>> {
            ::std::pin::Pin::new(&mut self.get_mut().$inner).poll_write(cx, data)
        }

        fn poll_write_vectored(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            data: &[::std::io::IoSlice<'_>],
        ) -> ::std::task::Poll<::std::io::Result<usize>> {
            ::std::pin::Pin::new(&mut self.get_mut().$inner).poll_write_vectored(cx, data)
        }

        fn is_write_vectored(&self) -> bool {
            self.$inner.is_write_vectored()
        }

        fn poll_flush(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            ::std::pin::Pin::new(&mut self.get_mut().$inner).poll_flush(cx)
        }
    };
}

/// The end of what a wrapper writes, where it is that of its field.
#[macro_export]
macro_rules! forward_shutdown {
    ($inner:ident) => {
        fn poll_shutdown(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            ::std::pin::Pin::new(&mut self.get_mut().$inner).poll_shutdown(cx)
        }
    };
}

/// All of `ChunkIo` but reading, where a wrapper looks at what it reads and at nothing else.
#[macro_export]
macro_rules! forward_chunks_out {
    ($inner:ident) => {
        fn poll_send(
            &mut self,
            cx: &mut ::std::task::Context<'_>,
            chunk: &mut ::bytes::Bytes,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            self.$inner.poll_send(cx, chunk)
        }

        fn poll_end(
            &mut self,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            self.$inner.poll_end(cx)
        }

        fn poll_broken(&mut self, cx: &mut ::std::task::Context<'_>) -> ::std::io::Result<()> {
            self.$inner.poll_broken(cx)
        }

        fn abort(&mut self) {
            self.$inner.abort();
        }
    };
}

pub use {forward_chunks_out, forward_read, forward_shutdown, forward_write};
