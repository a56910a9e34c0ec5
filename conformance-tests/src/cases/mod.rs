//! The cases: the catalogue as data, grouped by its letters.
//!
//! A case says what the peers do and what must hold; it knows no runtime. Its function is called like
//! its `#[test]`: id and title. [`all`] lists those that run scripts; the ones about `wait_for` are
//! functions over any runtime (`wait.rs`), those in exact time functions that play several (`exact.rs`).

pub mod a;
pub mod answer;
pub mod c;
pub mod client;
mod dropped;
pub mod exact;
pub mod h;
pub mod hygiene;
pub mod k;
pub mod live;
pub mod names;
mod outside;
pub mod p;
pub mod q;
pub mod r;
pub mod s;
pub mod schedules;
pub mod t;
mod timers;
pub mod total;
pub mod u;
pub mod upstreams;
pub mod v;
pub mod w;
pub mod wait;
mod wait_more;

use crate::run_fake::ExactCase;
use crate::run_live::LiveCase;
use crate::script::{Case, Script, ms, script};

/// More than two connections' kernel buffers swallow with the usual settings, so that whoever writes it is
/// blocked if the reader stops.
pub(crate) const BIG: u64 = 16 << 20;

/// A longer body than anybody will ever send.
pub(crate) const ENDLESS: u64 = 1 << 40;

/// A POST of `len` bytes, the head alone.
pub(crate) fn post(len: u64) -> Script {
    script().head(&format!("POST / HTTP/1.1\nhost: conformance\ncontent-length: {len}"))
}

/// A client that goes on sending its body, whatever it is answered, and reads to the end.
pub(crate) fn eager_sender() -> Script {
    let sends = script().drip(1024, ms(5), 10_000);
    script().connect().mark("start").then(post(BIG)).background(sends).read_message().read_to_end()
}

/// The head of a 200 with `len` bytes.
pub(crate) fn ok(len: u64) -> Script {
    script().head(&format!("HTTP/1.1 200 OK\ncontent-length: {len}"))
}

/// A case with the name of its test.
pub type Named = (&'static str, fn() -> Case);

/// One case of each kind: what is kept as a golden trace, and what runs where the whole suite would say nothing more.
/// None blocks a thread or wraps the runtime.
pub fn few() -> Vec<Named> {
    vec![
        ("c_01_hang", c::c_01_hang),
        ("c_17_next_upstream", upstreams::c_17_next_upstream),
        ("q_05_client_stalls", q::q_05_client_stalls),
        ("q_10_expect_late_100", answer::q_10_expect_late_100),
        ("r_01_silent", r::r_01_silent),
        ("r_06_stall_in_a_chunked_body", r::r_06_stall_in_a_chunked_body),
        ("r_13_resume_is_a_full_period", r::r_13_resume_is_a_full_period),
        ("t_02_outer_first", total::t_02_outer_first),
        ("t_12_pipelined", total::t_12_pipelined),
        ("k_03_slowloris", k::k_03_slowloris),
        ("p_01_poison", p::p_01_poison),
        ("u_04_half_close_client_first", u::u_04_half_close_client_first),
        ("s_02_drain_expires_in_the_body", s::s_02_drain_expires_in_the_body),
    ]
}

#[doc(hidden)]
#[macro_export]
macro_rules! __list_cases {
    ([] [$($module:ident :: $name:ident)*] [$($wait:ident)*] [$($place:ident :: $exact:ident)*]
     [$($live:ident)*] [$($abroad:ident)*]) => {
        /// Every scripted case with the name of its test.
        pub fn all() -> Vec<Named> {
            vec![$((stringify!($name), $module::$name)),*]
        }

        /// The names of the tests of all cases.
        pub const NAMES: &[&str] =
            &[$(stringify!($name),)* $(stringify!($wait),)* $(stringify!($exact),)* $(stringify!($live),)*
              $(stringify!($abroad)),*];

        /// The cases about `wait_for`: the name of the test, what it should be, and whether the case can fail.
        pub fn all_waits() -> Vec<(&'static str, String, fn() -> bool)> {
            vec![$((
                stringify!($wait),
                wait::test_name_of::<wait::$wait>(),
                $crate::wait_can_fail::<wait::$wait>,
            )),*]
        }

        /// The names of the tests of those that run while no other case does.
        pub(crate) fn alone() -> Vec<&'static str> {
            let scripted = all().into_iter().filter(|(_, case)| case().alone).map(|(name, _)| name);
            let waits = [$((stringify!($wait), <wait::$wait as wait::WaitCase>::ALONE)),*];
            let waits = waits.into_iter().filter(|(_, alone)| *alone).map(|(name, _)| name);
            scripted.chain(waits).chain([$(stringify!($live)),*]).collect()
        }

        /// Every case in exact time with the name of its test.
        pub fn all_exact() -> Vec<(&'static str, ExactCase)> {
            vec![$((stringify!($exact), |exact| Box::pin($place::$exact(exact)))),*]
        }

        /// Every live case with the name of its test.
        pub fn all_live<H: $crate::Harness>() -> Vec<(&'static str, LiveCase)> {
            vec![$((stringify!($live), live::$live::<H>)),*]
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
            c::c_11_equal
            c::c_14_two_hundred_hangs_in_a_row
            c::c_15_fd_number_reused
            c::c_16_client_leaves_while_connecting
            q::q_01_upstream_never_reads
            q::q_02_progress_does_not_reset
            q::q_04_small_request_into_the_void
            q::q_05_client_stalls
            q::q_06_client_drips
            q::q_07_early_final_response
            q::q_08_response_started_request_unfinished
            q::q_09_expect_silence
            q::q_11_chunked_request_cut
            q::q_13_exact_prefix
            q::q_14_one_byte_writes
            q::q_14_one_byte_writes_are_no_excuse
            q::q_15_write_none_total_250
            q::q_16_upstream_resets_while_we_write
            q::q_17_long_upload_read_timer_quiet
            r::r_01_silent
            r::r_02_drip_is_fine
            r::r_03_drip_against_total
            r::r_04_stall_inside_the_status_line
            r::r_04_stall_inside_a_header
            r::r_05_stall_in_a_content_length_body
            r::r_06_stall_in_a_chunked_body
            r::r_07_stall_in_a_close_delimited_body_chunked
            r::r_07_stall_in_a_close_delimited_body_http_1_0
            r::r_08_stall_after_the_chunk_size_line
            r::r_09_stall_in_the_trailers
            r::r_10_stall_before_the_very_last_crlf
            r::r_12_slow_client_suspends
            r::r_13_resume_is_a_full_period
            r::r_16_eof_ends_a_close_delimited_body_at_the_tie
            r::r_19_stall_of_the_executor
            r::r_20_stale_readiness
            t::t_03_equal
            t::t_04_stall_past_both_outer_earlier
            t::t_05_stall_past_both_inner_earlier
            t::t_13_flood
            t::t_15_remaining_budget
            t::t_17_none
            t::t_18_in_the_queue
            t::t_18_in_the_connect
            t::t_18_in_the_write_upstream_slow
            t::t_18_in_the_write_client_slow
            t::t_18_in_the_100_wait
            t::t_18_in_the_response_head
            t::t_18_in_the_response_body
            t::t_18_in_the_client_write
            k::k_01_nothing_sent
            k::k_02_half_a_head
            k::k_03_slowloris
            k::k_06_body_stall
            k::k_07_body_drip
            k::k_08_body_timer_suspended
            k::k_09_408_survives_an_eager_sender
            k::k_10_slow_reader
            k::k_11_slow_but_reading
            p::p_01_poison
            p::p_05_idle_expiry
            p::p_02_poison_after_a_write_timeout
            p::p_03_poison_after_a_total_timeout_in_the_body
            p::p_04_poison_after_a_client_abort
            p::p_07_clean_hand_back
            p::p_13_request_sent_incompletely
            p::p_14_idle_expiry_and_checkout_after_a_stall
            p::p_15_response_fully_read_client_slow
            h::h_01_client_head
            h::h_02_order
            h::h_01_queue_without_a_body
            h::h_01_queue_content_length
            h::h_01_queue_chunked
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
            h::h_01_drain_content_length
            h::h_01_drain_chunked
            h::h_01_drain_close_delimited
            h::h_01_client_write_content_length
            h::h_01_client_write_chunked
            h::h_01_client_write_close_delimited
            h::h_01_keep_alive_content_length
            h::h_01_keep_alive_chunked
            h::h_01_pool_idle_content_length
            h::h_01_pool_idle_chunked
            h::h_01_tunnel
            h::h_01_half_closed_tunnel
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
            names::c_05_two_addresses_first_hangs
            names::c_05_two_addresses_first_refuses
            names::c_06_all_addresses_hang
            names::c_07_slow_dns
            names::c_07_unknown_name
            names::c_08_dns_pool_full
            names::c_09_zero_and_pool_hit
            names::h_12_blocking_work
            names::s_04_during_name_resolution
            names::t_18_during_name_resolution
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
            s::s_09_restart_in_the_same_process
            s::s_10_half_read_backlog
            s::s_11_own_limits_still_run_while_draining
            a::a_03_flood_while_the_read_timer_is_armed
            a::a_04_data_before_no_stall
            a::a_04_data_before_30
            a::a_04_data_before_60
            a::a_04_data_before_200
            a::a_04_data_after_no_stall
            a::a_04_data_after_30
            a::a_04_data_after_60
            a::a_04_data_after_200
            a::a_04_both_deadlines_no_stall
            a::a_04_both_deadlines_30
            a::a_04_both_deadlines_60
            a::a_04_both_deadlines_200
            a::a_05_wake_storm
            a::a_06_late_timer
            a::a_06_early_timer
            a::a_07_spent_timer
            a::a_12_spurious_readiness
            a::a_13_interrupted
            a::a_13_zero_byte_write
            a::a_13_zero_byte_write_to_the_client
            a::a_17_hostile_neighbour
            a::a_18_deadline_in_the_same_turn_as_accept
            a::a_17_neighbour_past_two_deadlines
            hygiene::h_11_linger_bounded_in_time
            hygiene::h_11_linger_bounded_in_bytes
            hygiene::h_13_close_is_not_delayed_by_a_busy_executor
            hygiene::h_14_kernel_leftovers
            w::w_02_zero_already_done
            w::w_03_past_deadline_operation_running
            w::w_11_cancellation_not_swallowed_answer_first
            w::w_11_cancellation_not_swallowed_stop_first
            w::w_12_cancelled_again_during_teardown
            w::w_12_cancelled_again_one_place
            w::w_13_shield
            w::w_16_second_deadline_during_cleanup
        ] [
            w_01_zero_not_started
            w_04_plain_timeout
            w_05_none
            w_06_success_just_before
            w_07_tie
            w_07_tie_one_turn_too_late
            w_08_cleanup_before_error
            w_10_dropping_the_waiter_cancels
            w_11_cancellation_not_swallowed
            w_14_re_arm_earlier
            w_14_re_arm_later
            w_14_re_arm_after_a_stall
            w_15_re_arm_after_firing
            w_16_second_deadline_of_one_timer
            w_17_lazy_creation
            w_18_inner_by_reference
            s_08_timers_after_the_runtime_is_gone
            t_03_wait_for_equal
            t_04_wait_for_stall_past_both_outer_earlier
            t_05_wait_for_stall_past_both_inner_earlier
            t_13_wait_for_flood
        ] [
            exact::w_09_error_in_cleanup
            exact::c_12_tie_connected_in_the_expiring_turn
            exact::c_13_connected_just_after
            exact::q_12_tie_on_the_last_byte
            exact::t_14_once_only
            exact::t_19_big_jump
            exact::p_10_cancelled_waiter_in_all_orders
            exact::p_12_connect_finishes_after_its_waiter_left
            exact::p_14_idle_expiry_and_checkout_in_one_turn
            v::v_02_three_executors_one_trace
            v::v_03_early_call
            v::v_05_repeated_call
            v::v_06_clock_goes_back
            v::v_07_extremes
            v::v_09_order_independence
            v::v_10_nothing_armed
            v::v_12_time_only_through_the_argument
            v::v_14_chunking_independence
            schedules::h_07_cancel_at_every_poll
            schedules::v_08_sub_millisecond
            schedules::a_16_fake_slow_clock_reading
        ] [
            h_03_tasks
            h_04_timers
            h_05_wakers
            h_06_buffers
            h_08_cancel_at_every_event
            h_09_panic_in_a_user_hook
            h_10_no_cycles
            h_15_metrics_add_up
            a_01_one_byte_flood
            a_02_always_ready_transport
            a_08_waker_swapped
            a_14_ten_thousand_equal_deadlines
            a_15_arm_cancel_churn
            a_19_fairness_between_connections
            a_20_whole_process_stopped
            v_13_replay
        ] [
            a_09_migration
            a_11_wrong_runtime
        ] }
    };
}

__for_each_case! { __list_cases }
