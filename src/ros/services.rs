//! `~/ground`, `~/describe` and `~/find`: every request becomes one for the engine, every answer one for the asker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use r2r::builtin_interfaces::msg::Duration as DurationMessage;
use r2r::language_grounding::action::Find;
use r2r::language_grounding::msg;
use r2r::language_grounding::srv::{Describe, Ground};
use r2r::std_msgs::msg::Header;
use r2r::{ActionServerCancelRequest, ActionServerGoal, QosProfile};
use tokio::sync::{mpsc, oneshot};

use super::time_from_nanos;
use crate::engine::calls::{Call, DescribeCall, DescribeRefusal, Description, GroundCall};
use crate::engine::camera::FrameHeader;
use crate::engine::outcome::Outcome;
use crate::result::Status;

/// How long `~/find` looks without a timeout of its own.
const FIND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a single image may keep `~/find` waiting before it tells that none comes.
const FIND_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long r2r may take to mark a goal as canceling.
const CANCEL_GRACE: Duration = Duration::from_millis(300);

/// Serves all three for as long as the node lives.
pub fn serve(node: &mut r2r::Node, engine: &mpsc::Sender<Call>) -> r2r::Result<()> {
    let mut ground = node.create_service::<Ground::Service>("~/ground", QosProfile::services_default())?;
    let requests = engine.clone();
    let numbers = AtomicU64::new(1);
    tokio::spawn(async move {
        while let Some(request) = ground.next().await {
            let id = format!("ground-{}", numbers.fetch_add(1, Ordering::Relaxed));
            let requests = requests.clone();
            tokio::spawn(async move {
                let instruction = request.message.instruction.clone();
                let timeout = duration(&request.message.timeout);
                let answer = ask(&requests, id.clone(), instruction.clone(), timeout, 0).await;
                let result = match answer {
                    Ok((outcome, _)) => outcome.result(),
                    Err(message) => blocked(&id, &instruction, &message),
                };
                // Fails only when the node is gone.
                request.respond(Ground::Response { result }).ok();
            });
        }
    });

    let mut describe =
        node.create_service::<Describe::Service>("~/describe", QosProfile::services_default())?;
    let requests = engine.clone();
    tokio::spawn(async move {
        while let Some(request) = describe.next().await {
            let requests = requests.clone();
            tokio::spawn(async move {
                let (reply, answer) = oneshot::channel();
                let call = DescribeCall { question: request.message.question.clone(), reply };
                let sent = requests.try_send(Call::Describe(call));
                let response = match (sent, answer.await) {
                    (Ok(()), Ok(described)) => describe_response(described),
                    _ => Describe::Response { message: NOT_TAKEN.to_owned(), ..Default::default() },
                };
                request.respond(response).ok();
            });
        }
    });

    let mut find = node.create_action_server::<Find::Action>("~/find")?;
    let requests = engine.clone();
    tokio::spawn(async move {
        while let Some(request) = find.next().await {
            match request.accept() {
                Ok((goal, cancels)) => {
                    tokio::spawn(look_until_found(goal, cancels, requests.clone()));
                }
                Err(error) => tracing::error!("cannot accept a goal: {error}"),
            }
        }
    });
    Ok(())
}

fn describe_response(described: Result<Description, DescribeRefusal>) -> Describe::Response {
    let header = |it: FrameHeader| Header { stamp: time_from_nanos(it.stamp_ns), frame_id: it.frame_id };
    match described {
        Ok(it) => Describe::Response {
            header: header(it.header),
            model: it.model,
            success: true,
            text: it.text,
            ..Default::default()
        },
        Err(it) => Describe::Response {
            header: header(it.header),
            model: it.model,
            message: it.refusal.to_string(),
            ..Default::default()
        },
    }
}

/// A question that so many images in a row raise is one that looking does not answer.
const STABLE_IMAGES: u32 = 3;
const NOT_TAKEN: &str = "too many requests are waiting, or the node is shutting down";

/// One request to the engine and its answer: the outcome, and the number of the image it is about.
async fn ask(
    engine: &mpsc::Sender<Call>,
    id: String,
    instruction: String,
    timeout: Duration,
    after_sequence: u64,
) -> Result<(Arc<Outcome>, u64), String> {
    let (reply, answer) = oneshot::channel();
    let call = GroundCall { id, instruction, timeout, after_sequence, reply };
    engine.try_send(Call::Ground(call)).map_err(|_| NOT_TAKEN.to_owned())?;
    answer.await.map_err(|_| NOT_TAKEN.to_owned())
}

async fn look_until_found(
    mut goal: ActionServerGoal<Find::Action>,
    mut cancels: impl Stream<Item = ActionServerCancelRequest> + Unpin,
    engine: mpsc::Sender<Call>,
) {
    let instruction = goal.goal.instruction.clone();
    let id = format!("find-{}", goal.uuid.simple());
    let timeout = duration(&goal.goal.timeout);
    let deadline = Instant::now() + if timeout.is_zero() { FIND_TIMEOUT } else { timeout };
    let mut images_tried = 0;
    let mut after_sequence = 0;
    let mut last: Option<msg::GroundingResult> = None;
    let mut n_ambiguous = 0;
    let finished = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break last
                .take()
                .unwrap_or_else(|| blocked(&id, &instruction, "there was no time to look at an image"));
        }
        let feedback = |stage: &str, last: Option<&msg::GroundingResult>| Find::Feedback {
            stage: stage.to_owned(),
            images_tried,
            status: last.map_or(0, |it| it.status),
            message: last.map(|it| it.message.clone()).unwrap_or_default(),
        };
        goal.publish_feedback(feedback("look", last.as_ref())).ok();
        // Too little time for an image is no news about the camera.
        let is_cut_short = left < FIND_ATTEMPT_TIMEOUT;
        let attempt =
            ask(&engine, id.clone(), instruction.clone(), left.min(FIND_ATTEMPT_TIMEOUT), after_sequence);
        let answer = tokio::select! {
            answer = attempt => answer,
            Some(request) = cancels.next() => {
                let result =
                    last.unwrap_or_else(|| blocked(&id, &instruction, "the search was canceled"));
                return cancel(goal, request, result).await;
            }
        };
        match answer {
            Ok((outcome, sequence)) => {
                let said_nothing = matches!(outcome.result.status, Status::Stale | Status::Error);
                if said_nothing && is_cut_short && last.is_some() {
                    continue;
                }
                let result = outcome.result();
                images_tried += u32::from(sequence != after_sequence);
                after_sequence = sequence;
                n_ambiguous = if outcome.result.status == Status::Ambiguous { n_ambiguous + 1 } else { 0 };
                // What another image cannot change.
                let is_final =
                    matches!(outcome.result.status, Status::Found | Status::BadInstruction | Status::Blocked)
                        || STABLE_IMAGES <= n_ambiguous;
                if is_final {
                    break result;
                }
                goal.publish_feedback(Find::Feedback {
                    stage: "resolved".to_owned(),
                    images_tried,
                    status: result.status,
                    message: result.message.clone(),
                })
                .ok();
                last = Some(result);
            }
            Err(message) => break blocked(&id, &instruction, &message),
        }
    };
    // Looked, and told what there is: that it is not there is an answer too.
    let answers = [
        msg::GroundingResult::FOUND as u8,
        msg::GroundingResult::NOT_FOUND as u8,
        msg::GroundingResult::AMBIGUOUS as u8,
        msg::GroundingResult::NO_DEPTH as u8,
        msg::GroundingResult::NO_TRANSFORM as u8,
    ];
    let is_answer = answers.contains(&finished.status);
    let result = Find::Result { result: finished };
    let told = if is_answer { goal.succeed(result) } else { goal.abort(result) };
    if let Err(error) = told {
        tracing::error!("cannot finish the goal {id}: {error}");
    }
}

async fn cancel(
    mut goal: ActionServerGoal<Find::Action>,
    request: ActionServerCancelRequest,
    result: msg::GroundingResult,
) {
    request.accept();
    // The spinning thread moves the goal to CANCELING; before that it cannot become CANCELED.
    let deadline = Instant::now() + CANCEL_GRACE;
    while Instant::now() < deadline && !goal.is_cancelling().unwrap_or(true) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if let Err(error) = goal.cancel(Find::Result { result }) {
        tracing::error!("cannot cancel a goal: {error}");
    }
}

/// The result of a request that never reached the engine.
fn blocked(id: &str, instruction: &str, message: &str) -> msg::GroundingResult {
    msg::GroundingResult {
        instruction_id: id.to_owned(),
        instruction: instruction.to_owned(),
        status: msg::GroundingResult::BLOCKED as u8,
        message: message.to_owned(),
        ..Default::default()
    }
}

/// Negative durations are zero.
fn duration(message: &DurationMessage) -> Duration {
    u64::try_from(message.sec)
        .map_or(Duration::ZERO, |secs| Duration::new(secs, message.nanosec.min(999_999_999)))
}
