//! Operation: I/O of one kind, of which at most one is in progress. The loop starts it and absorbs its
//! result.

use futures_util::future::{BoxFuture, FutureExt, pending};

/// Operation for one future. While it is empty, [`Operation::done`] never completes.
pub(super) struct Operation<T> {
    future: Option<BoxFuture<'static, T>>,
}

impl<T> Operation<T> {
    /// An empty slot.
    pub(super) fn new() -> Self {
        Self { future: None }
    }

    /// Whether the slot is empty.
    pub(super) fn is_idle(&self) -> bool {
        self.future.is_none()
    }

    /// Starts a future, and drops the one before.
    pub(super) fn start(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.future = Some(future.boxed());
    }

    /// Drops the future.
    pub(super) fn clear(&mut self) {
        self.future = None;
    }

    /// Waits for the future, and empties the slot.
    ///
    /// # Cancel safety
    /// The future stays in the slot when this is dropped.
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
