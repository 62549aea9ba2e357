//! Endpoints for tasks, on async-io.

mod common;
#[path = "conformance/place.rs"]
mod place;
#[path = "conformance/stage.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod stage;
mod tasks;
#[path = "conformance/transports.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod transports;

use std::time::Duration;
use tasks::Runtime;

struct AsyncIo;

impl Runtime for AsyncIo {
    type Readiness = ringway::async_io::Registration;

    fn block_on<T>(task: impl Future<Output = T>) -> T {
        async_io::block_on(task)
    }

    async fn sleep(time: Duration) {
        async_io::Timer::after(time).await;
    }
}

tasks::tests!(crate::AsyncIo);
