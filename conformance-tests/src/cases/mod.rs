//! The cases: the catalogue of `timeouts.md` section 4 as data, grouped by its letters.
//!
//! A case says what the peers do and what must hold; it knows no runtime. Its function is called like
//! its `#[test]`: id and title. [`all`] lists those that run scripts; the ones about `wait_for` are
//! functions over any runtime (`wait.rs`).

pub mod answer;
pub mod c;
pub mod client;
pub mod h;
pub mod k;
pub mod p;
pub mod q;
pub mod r;
pub mod s;
pub mod t;
pub mod total;
pub mod u;
pub mod upstreams;
pub mod wait;

use crate::script::{Case, Script, script};

/// More than two connections' kernel buffers swallow with the usual settings, so that whoever writes it is
/// blocked if the reader stops.
pub(crate) const BIG: u64 = 16 << 20;

/// A longer body than anybody will ever send.
pub(crate) const ENDLESS: u64 = 1 << 40;

/// A POST of `len` bytes, the head alone.
pub(crate) fn post(len: u64) -> Script {
    script().head(&format!("POST / HTTP/1.1\nhost: conformance\ncontent-length: {len}"))
}

/// The head of a 200 with `len` bytes.
pub(crate) fn ok(len: u64) -> Script {
    script().head(&format!("HTTP/1.1 200 OK\ncontent-length: {len}"))
}

/// A case with the name of its test.
pub type Named = (&'static str, fn() -> Case);

#[doc(hidden)]
#[macro_export]
macro_rules! __list_cases {
    ([] [$($module:ident :: $name:ident)*] [$($wait:ident)*]) => {
        /// Every scripted case with the name of its test.
        pub fn all() -> Vec<Named> {
            vec![$((stringify!($name), $module::$name)),*]
        }

        /// The names of the tests of all cases.
        pub const NAMES: &[&str] = &[$(stringify!($name),)* $(stringify!($wait)),*];

        /// The names of the tests of the cases about `wait_for`.
        pub fn all_waits() -> Vec<(&'static str, String)> {
            vec![$((stringify!($wait), wait::test_name_of::<wait::$wait>())),*]
        }
    };
}

/// Calls a macro with every case: the one list that the tests of all runtimes are made from.
#[doc(hidden)]
#[macro_export]
macro_rules! __for_each_case {
    ($callback:ident $($argument:tt)*) => {
        $crate::$callback! { [$($argument)*] [
            c::c_01_hang
            c::c_02_no_ghost
            c::c_03_refused
            c::c_04_accepted_by_the_kernel_only
            c::c_10_total_smaller
            c::c_16_client_leaves_while_connecting
            q::q_01_upstream_never_reads
            q::q_02_progress_does_not_reset
            q::q_05_client_stalls
            q::q_06_client_drips
            q::q_07_early_final_response
            q::q_09_expect_silence
            r::r_01_silent
            r::r_02_drip_is_fine
            r::r_05_stall_in_a_content_length_body
            r::r_06_stall_in_a_chunked_body
            r::r_07_stall_in_a_close_delimited_body_chunked
            r::r_07_stall_in_a_close_delimited_body_http_1_0
            r::r_12_slow_client_suspends
            r::r_13_resume_is_a_full_period
            r::r_19_stall_of_the_executor
            r::r_20_stale_readiness
            t::t_03_equal
            t::t_04_stall_past_both_outer_earlier
            t::t_05_stall_past_both_inner_earlier
            t::t_13_flood
            k::k_02_half_a_head
            k::k_03_slowloris
            k::k_09_408_survives_an_eager_sender
            k::k_10_slow_reader
            p::p_01_poison
            p::p_05_idle_expiry
            h::h_01_client_head
            h::h_02_order
            h::h_01_connect_without_a_body
            h::h_01_connect_content_length
            h::h_01_connect_chunked
            h::h_01_write_content_length
            h::h_01_write_chunked
            h::h_01_client_body_content_length
            h::h_01_client_body_chunked
            h::h_01_read_content_length
            h::h_01_read_chunked
            h::h_01_read_close_delimited
            h::h_01_total_content_length
            h::h_01_total_chunked
            h::h_01_total_close_delimited
            h::h_01_client_write_content_length
            h::h_01_client_write_chunked
            h::h_01_client_write_close_delimited
            h::h_01_keep_alive_content_length
            h::h_01_keep_alive_chunked
            h::h_01_pool_idle_content_length
            h::h_01_pool_idle_chunked
            client::k_04_second_request_half_sent
            client::k_05_idle_keep_alive
            client::k_12_half_closed_client
            client::k_13_client_reset_in_the_response
            client::k_14_client_gone_while_waiting
            client::k_15_no_408_after_the_head_of_a_response
            client::k_16_100_clients_stall_at_once
            client::k_17_408_and_pipelining
            answer::q_03_drained_in_time
            answer::q_10_expect_late_100
            answer::r_11_103_then_silence
            answer::r_14_upstream_finished_during_the_suspension
            answer::r_15_no_body_to_come
            answer::r_17_closed_before_a_byte
            answer::r_18_reset_in_the_body
            answer::r_21_late_answer
            answer::r_22_exactly_at_the_limit_many_times
            answer::r_23_two_responses_to_one_request
            total::t_01_inner_first
            total::t_02_outer_first
            total::t_06_starts_at_the_complete_head
            total::t_07_includes_the_queue
            total::t_08_includes_retries
            total::t_09_includes_a_slow_client
            total::t_10_fresh_per_request
            total::t_11_idle_costs_nothing
            total::t_12_pipelined
            total::t_16_total_0
            upstreams::c_17_next_upstream
            upstreams::c_18_retries_use_up_the_total
            upstreams::c_19_permit_freed
            upstreams::p_06_stale_connection_closed_before
            upstreams::p_06_stale_connection_reset_in_the_race_get
            upstreams::p_06_stale_connection_reset_in_the_race_post
            upstreams::p_08_unsolicited_bytes_on_an_idle_connection
            upstreams::p_09_permit_freed
            upstreams::p_10_cancelled_waiter
            upstreams::p_11_queue_limit
            upstreams::p_11_queue_full
            upstreams::p_11_client_limit
            u::u_01_101_disarms
            u::u_02_idle
            u::u_03_one_direction_active
            u::u_04_half_close_client_first
            u::u_04_half_close_upstream_first
            u::u_05_half_closed_and_silent
            u::u_06_bytes_in_but_not_out
            u::u_07_refused_upgrade
            u::u_08_payload_glued_to_the_101
            u::u_09_reset_by_the_client
            u::u_09_reset_by_the_upstream
            u::u_10_upgrade_never_answered
            u::u_11_flood_in_one_direction_drain_asked
            s::s_01_graceful
            s::s_02_drain_expires_before_the_head
            s::s_02_drain_expires_in_the_body
            s::s_03_idle_connections
            s::s_03_tunnels
            s::s_04_during_connect
            s::s_04_in_the_queue
            s::s_05_stop_without_drain
            s::s_06_drain_twice
            s::s_06_stop_twice_in_a_drain
            s::s_07_from_inside_a_task
            s::s_11_own_limits_still_run_while_draining
        ] [
            w_01_zero_not_started
            w_04_plain_timeout
            w_08_cleanup_before_error
            w_17_lazy_creation
            t_03_wait_for_equal
            t_04_wait_for_stall_past_both_outer_earlier
            t_05_wait_for_stall_past_both_inner_earlier
            t_13_wait_for_flood
        ] }
    };
}

__for_each_case! { __list_cases }
