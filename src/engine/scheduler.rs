//! One request after the other: those of services and actions come first, between them the standing instruction is answered on
//! every new image.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::answer::Answerer;
use super::calls::{Call, GroundCall};
use super::conversation::Conversation;
use super::followed::Around;
use super::frames::wait_for_frame;
use super::inputs::CameraFrame;
use super::outcome::{Outcome, shortened};
use super::ports::Ports;
use super::refusal::Refusal;
use super::state::State;
use super::tracking::Tracking;
use crate::image::RgbdFrame;
use crate::request::GroundingRequest;
use crate::result::Status;

/// Decides what is answered next.
pub struct Scheduler {
    ports: Ports,
    answerer: Answerer,
    tracking: Tracking,
    /// On the instruction topic.
    topic_conversation: Mutex<Conversation>,
    /// With services and actions.
    call_conversation: Mutex<Conversation>,
}

/// The instruction that is answered on every new image.
struct Standing {
    id: String,
    text: String,
    /// What it means; `None` when it is not understood, or too long.
    request: Option<GroundingRequest>,
    last_sequence: u64,
    last_started: Option<Instant>,
    /// Answered once and for all: it cannot be understood.
    is_settled: bool,
    n_answers: u64,
}

impl Scheduler {
    /// With nothing asked yet. The two ways in have a conversation each.
    pub fn new(
        ports: Ports,
        tracking: Tracking,
        topic_conversation: Conversation,
        call_conversation: Conversation,
    ) -> Self {
        Self {
            answerer: Answerer::new(ports.clone()),
            ports,
            tracking,
            topic_conversation: Mutex::new(topic_conversation),
            call_conversation: Mutex::new(call_conversation),
        }
    }

    /// Serves until both channels are closed.
    pub async fn run(self, mut calls: mpsc::Receiver<Call>, mut instructions: mpsc::Receiver<String>) {
        let mut standing: Option<Standing> = None;
        let mut n_instructions: u64 = 0;
        let mut state = self.ports.state.clone();
        loop {
            tokio::select! {
                biased;
                changed = state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if *state.borrow_and_update() != State::Active {
                        self.ports.results.lock().clear_markers();
                        self.tracking.begin(standing.as_ref().map(|it| (it.id.clone(), it.text.clone())));
                    }
                }
                call = calls.recv() => match call {
                    Some(Call::Ground(call)) => self.serve_ground(call).await,
                    Some(Call::Describe(call)) => {
                        let described = self.answerer.describe(call.question).await;
                        // The asker may have gone meanwhile.
                        call.reply.send(described).ok();
                    }
                    None => return,
                },
                text = instructions.recv() => {
                    let Some(text) = text else { return };
                    n_instructions += 1;
                    standing = self.replace_standing(standing.take(), text, n_instructions);
                }
                next = self.next_standing_frame(standing.as_ref()), if standing.is_some() => {
                    if let Some(standing) = &mut standing {
                        self.answer_standing(standing, next).await;
                    }
                }
            }
        }
    }

    fn replace_standing(&self, old: Option<Standing>, text: String, number: u64) -> Option<Standing> {
        // A publisher that repeats itself says nothing new: what "the other one" means must not change with every repetition.
        let may_go_on = self.answerer.check_active().err().is_none_or(|it| matches!(it, Refusal::Loading));
        let is_repeated = |it: &Standing| {
            may_go_on && it.request.is_some() && !it.is_settled && it.text.trim() == text.trim()
        };
        if old.as_ref().is_some_and(is_repeated) {
            return old;
        }
        if let Some(old) = old.filter(|it| it.n_answers == 0) {
            self.refuse(&old.id, &old.text, &Refusal::Superseded);
        }
        let id = format!("instruction-{number}");
        let newest = self.ports.inputs.newest(Duration::ZERO).map_or(0, |it| it.sequence());
        self.ports.monitor.skip_to(newest.saturating_sub(1));
        if text.trim().is_empty() {
            self.topic_conversation.lock().forget();
            self.tracking.begin(None);
            tracing::info!("empty instruction: stopped");
            self.refuse(&id, &text, &Refusal::Empty);
            return None;
        }
        let vocabulary = Arc::clone(&self.ports.config.borrow().vocabulary);
        let understood = self.topic_conversation.lock().understand(&id, &text, &vocabulary);
        if matches!(&understood, Ok(request) if request.instruction.is_stop()) {
            self.topic_conversation.lock().forget();
            self.tracking.begin(None);
            tracing::info!("{id}: {:?}: stopped", shortened(&text));
            self.refuse(&id, &text, &Refusal::Stopped);
            return None;
        }
        let (request, refusal) = match understood {
            Ok(request) => (Some(request), self.answerer.check_active().err()),
            Err(refusal) => (None, Some(refusal)),
        };
        let mut new = Standing {
            id,
            text,
            request,
            last_sequence: 0,
            last_started: None,
            is_settled: false,
            n_answers: 0,
        };
        tracing::info!("{}: {:?}", new.id, shortened(&new.text));
        self.tracking.begin(new.request.is_some().then(|| (new.id.clone(), new.text.clone())));
        // While a model is loading, the instruction waits for it.
        if let Some(refusal) = refusal.filter(|it| !matches!(it, Refusal::Loading)) {
            new.n_answers = 1;
            new.is_settled = refusal.status() == Status::BadInstruction;
            self.refuse(&new.id, &new.text, &refusal);
        }
        Some(new)
    }

    /// Waits for the next image the standing instruction is to be answered on, or for it to be time to say that none comes.
    /// Loses nothing when dropped.
    async fn next_standing_frame(&self, standing: Option<&Standing>) -> Result<CameraFrame, Refusal> {
        let Some(standing) = standing.filter(|it| !it.is_settled) else {
            return std::future::pending().await;
        };
        let mut state = self.ports.state.clone();
        // The sender lives as long as the node.
        if state.wait_for(|it| *it == State::Active).await.is_err() {
            return std::future::pending().await;
        }
        let min_period = self.ports.config.borrow().min_period;
        if let Some(started) = standing.last_started {
            tokio::time::sleep_until((started + min_period).into()).await;
        }
        wait_for_frame(&self.ports, standing.last_sequence, self.ports.limits.stale_period).await
    }

    async fn answer_standing(&self, standing: &mut Standing, frame: Result<CameraFrame, Refusal>) {
        standing.last_started = Some(Instant::now());
        standing.n_answers += 1;
        let seen = match frame {
            Ok(seen) => seen,
            Err(refusal) => return self.refuse(&standing.id, &standing.text, &refusal),
        };
        standing.last_sequence = seen.sequence();
        // What is not understood is settled, and no image is waited for.
        let Some(request) = &standing.request else { return };
        self.tracking.look_at(seen.header().stamp_ns);
        let (mut outcome, frame) =
            self.answerer.ground(&standing.id, request, &seen, self.ports.limits.model_timeout).await;
        self.topic_conversation.lock().record(&standing.id, request, &outcome.result);
        let config = Arc::clone(&self.ports.config.borrow());
        let mut followed = self.tracking.lock();
        let around = if config.track {
            followed.record(&mut outcome, frame.as_deref(), &config)
        } else {
            Around::default()
        };
        for outcome in around.before.iter().chain([&outcome]).chain(&around.after) {
            let frame = frame.as_deref().filter(|_| outcome.result.status != Status::Stale);
            self.ports.publish(outcome, frame);
        }
    }

    async fn serve_ground(&self, call: GroundCall) {
        let GroundCall { id, instruction, timeout, after_sequence, mut reply } = call;
        let answered = tokio::select! {
            answered = self.answer_call(&id, &instruction, timeout, after_sequence) => answered,
            () = reply.closed() => return self.refuse(&id, &instruction, &Refusal::Canceled),
        };
        let (outcome, frame, sequence) = answered;
        let outcome = Arc::new(outcome);
        self.ports.publish(&outcome, frame.as_deref());
        // The asker may have gone meanwhile; the result is published either way.
        reply.send((outcome, sequence)).ok();
    }

    /// The outcome, the frame and the number of the image it is about.
    async fn answer_call(
        &self,
        id: &str,
        instruction: &str,
        timeout: Duration,
        after_sequence: u64,
    ) -> (Outcome, Option<Arc<RgbdFrame>>, u64) {
        let limits = self.ports.limits;
        let started = Instant::now();
        let looked = async {
            let vocabulary = Arc::clone(&self.ports.config.borrow().vocabulary);
            let request = self.call_conversation.lock().understand(id, instruction, &vocabulary)?;
            if request.instruction.is_stop() {
                return Err(Refusal::Stopped);
            }
            self.answerer.check_active()?;
            let image_timeout = if timeout.is_zero() { limits.image_timeout } else { timeout };
            let seen = wait_for_frame(&self.ports, after_sequence, image_timeout).await?;
            Ok::<_, Refusal>((request, seen))
        };
        let (request, seen) = match looked.await {
            Ok(looked) => looked,
            Err(refusal) => {
                let has_waited = matches!(refusal, Refusal::NoFreshImage(_) | Refusal::ShuttingDown);
                let sequence = if has_waited { after_sequence } else { 0 };
                return (outcome_of(id, instruction, &refusal), None, sequence);
            }
        };
        let model_timeout =
            if timeout.is_zero() { limits.model_timeout } else { timeout.saturating_sub(started.elapsed()) };
        let (outcome, frame) = self.answerer.ground(id, &request, &seen, model_timeout).await;
        self.call_conversation.lock().record(id, &request, &outcome.result);
        (outcome, frame, seen.sequence())
    }

    fn refuse(&self, id: &str, text: &str, refusal: &Refusal) {
        self.ports.publish(&outcome_of(id, text, refusal), None);
    }
}

fn outcome_of(id: &str, text: &str, refusal: &Refusal) -> Outcome {
    Outcome::without_image(id, text, refusal.status(), refusal.to_string())
}
