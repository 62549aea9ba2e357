//! The same tests for every transport, and for each kind of segment: a program that runs over one runs over all.

#[path = "../common/mod.rs"]
mod common;

mod batches;
mod crowd;
mod endings;
mod interruptions;
mod place;
mod pressure;
mod roles;
mod sizes;
mod stage;
mod transports;

macro_rules! tests {
    ($transport:ident: $($file:ident::$body:ident)*) => {
        $(#[test]
        fn $body() {
            crate::stage::run(&crate::transports::$transport, crate::$file::$body);
        })*
    };
}

/// What all have to stand.
macro_rules! every {
    ($transport:ident) => {
        tests! { $transport:
            sizes::each_boundary
            sizes::the_largest
            sizes::many_small_ones
            sizes::tags
            sizes::a_buffer_that_is_too_small
            sizes::reserve_and_commit
            sizes::a_slow_writer
            sizes::its_capabilities
            pressure::a_receiver_that_runs_out_of_time
            batches::in_and_out
            batches::one_dropped_early
            batches::one_that_ends_too_large
            endings::a_sender_that_leaves
            endings::a_sender_that_sends_nothing
            endings::a_sender_that_is_killed
            endings::a_sender_that_is_killed_while_it_is_waited_for
            roles::a_forked_child
            interruptions::a_storm_of_signals
        }
    };
}

/// Those that hold only so much.
macro_rules! bounded {
    ($transport:ident) => {
        tests! { $transport: pressure::a_slow_reader pressure::a_sender_that_runs_out_of_time }
    };
}

/// Those at which messages get lost.
macro_rules! lossy {
    ($transport:ident) => {
        tests! { $transport: pressure::losses }
    };
}

/// Those that hold less than the longest message.
macro_rules! in_parts {
    ($transport:ident) => {
        tests! { $transport: endings::a_sender_that_is_killed_within_a_message }
    };
}

/// Those whose senders learn that the receiver has left.
macro_rules! answering {
    ($transport:ident) => {
        tests! { $transport: endings::a_receiver_that_leaves }
    };
}

/// Those whose senders learn that the receiver's process is gone.
macro_rules! watching {
    ($transport:ident) => {
        tests! { $transport:
            endings::a_receiver_that_is_killed
            endings::a_receiver_that_is_killed_while_it_is_waited_for
        }
    };
}

/// Those that have a name, by which others find them later.
macro_rules! named {
    ($transport:ident) => {
        tests! { $transport: endings::other_receivers_go_on endings::both_are_killed roles::a_failed_attempt }
    };
}

macro_rules! for_other_senders {
    ($transport:ident) => {
        tests! { $transport: endings::other_senders_go_on }
    };
}

macro_rules! for_several_senders {
    ($transport:ident) => {
        tests! { $transport: crowd::several_senders }
    };
}

/// Of which none waits for the receiver.
macro_rules! for_senders_at_will {
    ($transport:ident) => {
        tests! { $transport: crowd::several_senders_of_which_one_is_killed }
    };
}

macro_rules! for_one_receiver {
    ($transport:ident) => {
        tests! { $transport: roles::a_second_receiver }
    };
}

macro_rules! for_one_sender {
    ($transport:ident) => {
        tests! { $transport: roles::a_second_sender }
    };
}

macro_rules! conformance {
    ($($name:ident $transport:ident: $($group:ident)*;)*) => {
        $(mod $name {
            every! { $transport }
            $($group! { $transport })*
        })*
    };
}

conformance! {
    shm SHM: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    shm_mpmc SHM_MPMC: bounded answering watching named for_other_senders for_several_senders for_senders_at_will;
    sysv SYSV: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    sysv_mpmc SYSV_MPMC: bounded answering watching named for_other_senders for_several_senders for_senders_at_will;
    file FILE: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    file_mpmc FILE_MPMC: bounded answering watching named for_other_senders for_several_senders for_senders_at_will;
    anon ANON: bounded answering watching for_other_senders for_one_receiver for_one_sender;
    anon_mpmc ANON_MPMC: bounded answering watching for_other_senders for_several_senders for_senders_at_will;
    memfd MEMFD: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    memfd_mpmc MEMFD_MPMC: bounded answering watching named for_other_senders for_several_senders for_senders_at_will;
    auto AUTO: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    shm_sem SHM_SEM: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    shm_mpmc_sem SHM_MPMC_SEM: bounded answering watching named for_other_senders for_several_senders for_senders_at_will;
    shm_named_sem SHM_NAMED_SEM: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    shm_fifo SHM_FIFO: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    shm_mpmc_fifo SHM_MPMC_FIFO: bounded answering watching named for_other_senders for_several_senders for_senders_at_will;
    sysv_sysv_sem SYSV_SYSV_SEM: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    sysv_mpmc_sysv_sem SYSV_MPMC_SYSV_SEM: bounded answering watching named for_other_senders for_several_senders
        for_senders_at_will;
    file_mpmc_named_sem FILE_MPMC_NAMED_SEM: bounded answering watching named for_other_senders for_several_senders
        for_senders_at_will;
    anon_eventfd ANON_EVENTFD: bounded answering watching for_other_senders for_one_receiver for_one_sender;
    memfd_eventfd MEMFD_EVENTFD: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    memfd_mpmc_eventfd MEMFD_MPMC_EVENTFD: bounded answering watching named for_other_senders for_several_senders
        for_senders_at_will;
    auto_eventfd AUTO_EVENTFD: bounded answering watching named for_other_senders for_one_receiver for_one_sender;
    pipe PIPE: bounded in_parts answering watching for_several_senders for_senders_at_will;
    fd FD: bounded in_parts answering watching;
    fd_dgram FD_DGRAM: bounded in_parts answering watching;
    fd_seqpacket FD_SEQPACKET: bounded in_parts answering watching;
    fifo FIFO: bounded in_parts answering watching named for_other_senders for_several_senders for_senders_at_will for_one_receiver;
    pty PTY: bounded in_parts answering watching named for_other_senders for_one_receiver for_one_sender;
    mq MQ: bounded in_parts named for_other_senders for_several_senders for_senders_at_will for_one_receiver;
    mq_priority MQ_PRIORITY: bounded in_parts named for_other_senders for_several_senders for_senders_at_will for_one_receiver;
    sysvmq SYSVMQ: bounded in_parts named for_other_senders for_several_senders for_senders_at_will for_one_receiver;
    unix_stream UNIX_STREAM: bounded in_parts answering watching named for_other_senders for_several_senders for_senders_at_will
        for_one_receiver;
    unix_dgram UNIX_DGRAM: bounded in_parts answering watching named for_other_senders for_several_senders for_senders_at_will
        for_one_receiver;
    unix_seqpacket UNIX_SEQPACKET: bounded in_parts answering watching named for_other_senders for_several_senders
        for_senders_at_will for_one_receiver;
    unix_abstract UNIX_ABSTRACT: bounded in_parts answering watching named for_other_senders for_several_senders
        for_senders_at_will for_one_receiver;
    unix_abstract_dgram UNIX_ABSTRACT_DGRAM: bounded in_parts answering watching named for_other_senders for_several_senders
        for_senders_at_will for_one_receiver;
    unix_abstract_seqpacket UNIX_ABSTRACT_SEQPACKET: bounded in_parts answering watching named for_other_senders
        for_several_senders for_senders_at_will for_one_receiver;
    tcp4 TCP4: bounded in_parts answering watching named for_other_senders for_several_senders for_senders_at_will for_one_receiver;
    tcp6 TCP6: bounded in_parts answering watching named for_other_senders for_several_senders for_senders_at_will for_one_receiver;
    udp4 UDP4: lossy named for_other_senders for_several_senders for_one_receiver;
    udp6 UDP6: lossy named for_other_senders for_several_senders for_one_receiver;
    signal SIGNAL: bounded in_parts watching named for_other_senders for_several_senders for_one_receiver;
    log_flock LOG_FLOCK: for_other_senders for_several_senders for_senders_at_will;
    log_fcntl LOG_FCNTL: named for_other_senders for_several_senders for_senders_at_will;
    log_ofd LOG_OFD: named for_other_senders for_several_senders for_senders_at_will;
}
