//! What holds of endpoints for tasks, whatever runtime they run on.

pub mod cancelling;
pub mod crossing;
pub mod several;
pub mod streams;
pub mod wakers;

use crate::common::{Child, Kind, Scratch, alone};
use ringway::future::{Readiness, Receiver, Sender};
use ringway::{Address, Options};
use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A runtime.
pub trait Runtime {
    type Readiness: Readiness + Debug + Send + 'static;

    /// Runs a task on this thread.
    fn block_on<T>(task: impl Future<Output = T>) -> T;

    /// Ends after that time.
    fn sleep(time: Duration) -> impl Future<Output = ()>;
}

/// Runs a test in a process of its own: what other tests fork must not inherit a runtime that has begun.
pub fn apart(work: impl FnOnce()) {
    let _alone = alone();
    Child::fork(|_| work()).expect_success();
}

pub type In<R> = Receiver<<R as Runtime>::Readiness>;
pub type Out<R> = Sender<<R as Runtime>::Readiness>;

/// Both ends of a ring in this process; the address takes what it has with it.
pub fn pair<R: Runtime>(options: &str) -> (Out<R>, In<R>, Scratch) {
    let scratch = Scratch::with(Kind::Anon, options);
    let receiver = Receiver::new(scratch.receiver()).unwrap();
    (Sender::new(scratch.sender()).unwrap(), receiver, scratch)
}

/// Both ends of a pipe in this process.
pub fn pipe<R: Runtime>() -> (Out<R>, In<R>) {
    let (sender, receiver) = Options::new().pair(&"pipe:".parse::<Address>().unwrap()).unwrap();
    (Sender::new(sender.sender().unwrap()).unwrap(), Receiver::new(receiver.receiver().unwrap()).unwrap())
}

/// Polls it once, and drops it if that was in vain: none then.
pub async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// As many numbers as there is room for; how many.
pub async fn fill<R: Runtime>(sender: &mut Out<R>, len: usize) -> u64 {
    let mut message = vec![0; len.max(8)];
    let mut sent = 0_u64;
    let mut misses = 0;
    // One miss may be for the sake of other tasks.
    while misses < 2 {
        message[..8].copy_from_slice(&sent.to_le_bytes());
        match once(sender.send(&message)).await {
            Some(outcome) => {
                outcome.unwrap();
                (sent, misses) = (sent + 1, 0);
            }
            None => misses += 1,
        }
    }
    sent
}

pub fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

/// How often a future is polled until it is ready.
pub struct Counted<F> {
    pub future: Pin<Box<F>>,
    pub polls: u32,
}

impl<F: Future> Counted<F> {
    pub fn new(future: F) -> Self {
        Self { future: Box::pin(future), polls: 0 }
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls += 1;
        self.future.as_mut().poll(cx)
    }
}

/// Counts wakes, and passes them on.
pub struct Bell {
    wakes: AtomicU32,
    behind: Waker,
}

impl Bell {
    pub fn new(behind: &Waker) -> Arc<Self> {
        Arc::new(Self { wakes: AtomicU32::new(0), behind: behind.clone() })
    }

    pub fn wakes(&self) -> u32 {
        self.wakes.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.behind.wake_by_ref();
    }
}

/// All tests, on that runtime.
macro_rules! tests {
    ($runtime:ty) => {
        $crate::tasks::local!($runtime;
            cancelling: receiving() sending() flushing() a_sink();
            several: select_over_three() a_thousand() peers() peers_beside_room();
            streams: forward() buffers();
            wakers: forgotten() moving() once_each() fair();
        );

        /// Rings of both kinds, with each way to be woken.
        mod rings {
            #[test]
            fn with_a_slow_consumer() {
                $crate::tasks::apart(|| $crate::tasks::RINGS.iter().for_each(|options| $crate::tasks::several::a_slow_consumer::<$runtime>(options)));
            }

            #[test]
            fn in_batches() {
                $crate::tasks::apart(|| $crate::tasks::RINGS.iter().for_each(|options| $crate::tasks::streams::batches::<$runtime>(options)));
            }

            #[test]
            fn idle() {
                $crate::tasks::apart(|| $crate::tasks::RINGS.iter().for_each(|options| $crate::tasks::wakers::idle::<$runtime>(options)));
            }
        }

        /// Rings tell their senders of receivers.
        mod receivers_are_heard_of {
            use crate::{stage, tasks::crossing, transports};

            #[test]
            fn of_one() {
                stage::run(&transports::SHM, crossing::hear::<$runtime>);
            }

            #[test]
            fn of_many() {
                stage::run(&transports::SHM_MPMC, crossing::hear::<$runtime>);
            }
        }

        $crate::tasks::between_processes!($runtime;
            shm SHM; shm_mpmc SHM_MPMC; sysv SYSV; file FILE; anon ANON; anon_mpmc ANON_MPMC; memfd MEMFD; memfd_mpmc MEMFD_MPMC;
            auto AUTO; pipe PIPE; fd FD; fd_dgram FD_DGRAM; fd_seqpacket FD_SEQPACKET; fifo FIFO; pty PTY; mq MQ; mq_priority MQ_PRIORITY;
            unix_stream UNIX_STREAM; unix_dgram UNIX_DGRAM; unix_seqpacket UNIX_SEQPACKET; unix_abstract UNIX_ABSTRACT; tcp TCP4; udp UDP4;
            signal SIGNAL; log LOG_FLOCK; shm_named_sem SHM_NAMED_SEM; shm_fifo SHM_FIFO; sysv_sem SYSV_SYSV_SEM; memfd_eventfd MEMFD_EVENTFD;
        );
    };
}

/// In one process.
macro_rules! local {
    ($runtime:ty; $($module:ident: $($name:ident())*;)*) => {$(
        mod $module {
            $(#[test]
            fn $name() {
                $crate::tasks::apart($crate::tasks::$module::$name::<$runtime>);
            })*
        }
    )*};
}

macro_rules! between_processes {
    ($runtime:ty; $($name:ident $transport:ident;)*) => {
        mod between_processes {$(
            mod $name {
                use crate::{stage, tasks::crossing, transports::$transport};

                #[test]
                fn all_arrives() {
                    stage::run(&$transport, crossing::arrive::<$runtime>);
                }

                #[test]
                fn without_room_it_sleeps() {
                    stage::run(&$transport, crossing::press::<$runtime>);
                }

                #[test]
                fn a_death_is_told() {
                    stage::run(&$transport, crossing::mourn::<$runtime>);
                }
            }
        )*}
    };
}

pub(crate) use {between_processes, local, tests};

/// What rings can be made of, in this process.
pub const RINGS: [&str; 6] = [
    "capacity=4KiB",
    "capacity=4KiB&wait=sem",
    "capacity=4KiB&wait=eventfd",
    "ring=mpmc&capacity=16KiB",
    "ring=mpmc&capacity=16KiB&wait=sem",
    "ring=mpmc&capacity=16KiB&wait=eventfd",
];
