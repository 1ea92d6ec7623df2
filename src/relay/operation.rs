//! Operation: I/O of one kind, at most one at a time. The loop starts it and absorbs its result.

use futures_util::future::{BoxFuture, FutureExt, pending};

/// Operation of the loop. While it is idle, [`Operation::done`] never completes.
pub(super) struct Operation<T> {
    future: Option<BoxFuture<'static, T>>,
}

impl<T> Operation<T> {
    /// An idle operation.
    pub(super) fn new() -> Self {
        Self { future: None }
    }

    /// Whether no I/O is in progress.
    pub(super) fn is_idle(&self) -> bool {
        self.future.is_none()
    }

    /// Starts I/O, and drops the I/O that was in progress.
    pub(super) fn start(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.future = Some(future.boxed());
    }

    /// Drops the I/O in progress.
    pub(super) fn clear(&mut self) {
        self.future = None;
    }

    /// Waits for the result. The operation is idle afterwards.
    ///
    /// # Cancel safety
    /// The I/O goes on when this future is dropped.
    pub(super) async fn done(&mut self) -> T {
        match &mut self.future {
            None => pending().await,
            Some(future) => {
                let result = future.await;
                self.future = None;
                result
            }
        }
    }
}
