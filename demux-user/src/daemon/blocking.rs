//! Work that waits for locks or for the kernel, done beside the main thread.

use tokio::task::spawn_blocking;

/// Does something on another thread, which is in the network namespace of the main one. It is done to its
/// end even where nobody waits for it any more.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The daemon ends.
            Err(_) => std::future::pending().await,
        },
    }
}
