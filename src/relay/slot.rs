//! Room for one piece of I/O on its way, so that the loop can start it and absorb its result.

use futures_util::future::{BoxFuture, FutureExt, pending};

/// Room for one future. While it is empty, [`Slot::done`] never completes.
pub(super) struct Slot<T> {
    future: Option<BoxFuture<'static, T>>,
}

impl<T> Slot<T> {
    /// An empty slot.
    pub(super) fn new() -> Self {
        Self { future: None }
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.future.is_none()
    }

    /// Starts something. What was on its way before is dropped.
    pub(super) fn start(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.future = Some(future.boxed());
    }

    /// Gives up what is on its way.
    pub(super) fn clear(&mut self) {
        self.future = None;
    }

    /// Waits for what is on its way, and empties the slot.
    ///
    /// # Cancel safety
    /// What is on its way stays there when this is dropped.
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
