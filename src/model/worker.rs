//! The model on a thread of its own: a slow model never makes anything else slow.
//!
//! One job at a time, handed over through a channel of one; the answer comes back through a oneshot channel. Whoever waits
//! may stop waiting: a job at work is finished and its answer dropped, one that is still waiting is never begun.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{Model, ModelError, ModelInfo};

type Job = Box<dyn FnOnce(&mut dyn Model) + Send>;

/// A loaded model, or one being loaded, on its own thread. Dropping it waits for the job at hand.
pub struct ModelWorker {
    /// `None` while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    handle: ModelHandle,
    thread: Option<JoinHandle<()>>,
    busy: Arc<AtomicBool>,
}

/// Where a model is asked. Clones ask the same one; they do not keep it.
#[derive(Clone)]
pub struct ModelHandle {
    jobs: mpsc::WeakSender<Job>,
}

/// Why a job gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no model: none was loaded, or it could not be.
    #[error("no model is loaded")]
    NotLoaded,
    /// Another job was at work all the time.
    #[error("the model is busy with the request before")]
    Busy,
    /// The job was begun, and not done in time.
    #[error(
        "the model gave no answer within {:.1} s: allow more time, or use a smaller model", .0.as_secs_f64()
    )]
    Timeout(Duration),
    /// The model went before the job was done.
    #[error("the model was unloaded while it was asked")]
    Unloaded,
    /// The job panicked. This is a bug.
    #[error("the model broke off ({0}); this is a bug, please report it")]
    Panicked(String),
}

/// A job that was handed over.
struct Pending<R> {
    answer: oneshot::Receiver<Result<R, AskError>>,
    is_begun: Arc<AtomicBool>,
}

impl ModelWorker {
    /// Starts the thread and loads the model there; the receiver tells how that went.
    pub fn spawn(
        load: impl FnOnce() -> Result<Box<dyn Model>, ModelError> + Send + 'static,
    ) -> std::io::Result<(Self, oneshot::Receiver<Result<ModelInfo, ModelError>>)> {
        let (jobs, mut queue) = mpsc::channel::<Job>(1);
        let (loaded, outcome) = oneshot::channel();
        let busy = Arc::new(AtomicBool::new(false));
        let is_busy = Arc::clone(&busy);
        let thread = std::thread::Builder::new().name("model".to_owned()).spawn(move || {
            let mut model = match load() {
                Ok(model) => model,
                Err(error) => {
                    // Nobody may be waiting any more.
                    loaded.send(Err(error)).ok();
                    return;
                }
            };
            loaded.send(Ok(model.info().clone())).ok();
            while let Some(job) = queue.blocking_recv() {
                is_busy.store(true, Ordering::Relaxed);
                job(model.as_mut());
                is_busy.store(false, Ordering::Relaxed);
            }
        })?;
        let handle = ModelHandle { jobs: jobs.downgrade() };
        Ok((Self { jobs: Some(jobs), handle, thread: Some(thread), busy }, outcome))
    }

    /// Whether a job is running.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Where to ask it.
    pub fn handle(&self) -> ModelHandle {
        self.handle.clone()
    }
}

impl ModelHandle {
    /// Runs a job on the model's thread, after the one that may be at work, and waits for its answer, both together for no
    /// longer than `timeout`.
    ///
    /// # Errors
    /// There is no model, or the job was not done in time, or it panicked.
    pub async fn ask<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Model) -> R + Send + 'static,
        timeout: Duration,
    ) -> Result<R, AskError> {
        let deadline = Instant::now() + timeout;
        let jobs = self.jobs.upgrade().ok_or(AskError::NotLoaded)?;
        let permit = match timeout_at(deadline, jobs.reserve_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(AskError::NotLoaded),
            Err(_) => return Err(AskError::Busy),
        };
        let (job, pending) = package(job);
        // The sender that this gives back is dropped: the thread may end while its last answer is awaited.
        drop(permit.send(job));
        match timeout_at(deadline, pending.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(AskError::Unloaded),
            Err(_) if pending.is_begun.load(Ordering::Relaxed) => Err(AskError::Timeout(timeout)),
            Err(_) => Err(AskError::Busy),
        }
    }

    /// Hands a job over without waiting, if no other one waits; its answer comes out of the receiver.
    ///
    /// # Errors
    /// There is no model, or it is at work and another job waits already.
    pub fn submit<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Model) -> R + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<R, AskError>>, AskError> {
        let jobs = self.jobs.upgrade().ok_or(AskError::NotLoaded)?;
        let (job, pending) = package(job);
        jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::NotLoaded,
        })?;
        Ok(pending.answer)
    }
}

/// A job as the thread takes it, and where its answer comes out.
fn package<R: Send + 'static>(job: impl FnOnce(&mut dyn Model) -> R + Send + 'static) -> (Job, Pending<R>) {
    let (answer, receiver) = oneshot::channel();
    let is_begun = Arc::new(AtomicBool::new(false));
    let begun = Arc::clone(&is_begun);
    let job: Job = Box::new(move |model| {
        if answer.is_closed() {
            return;
        }
        begun.store(true, Ordering::Relaxed);
        // A panic in a model must cost one request, not the node. Models keep no state that a half-finished call could
        // corrupt beyond their feature cache, which is keyed by image.
        let outcome = catch_unwind(AssertUnwindSafe(|| job(model)))
            .map_err(|panic| AskError::Panicked(panic_text(panic.as_ref())));
        answer.send(outcome).ok();
    });
    (job, Pending { answer: receiver, is_begun })
}

impl Drop for ModelWorker {
    fn drop(&mut self) {
        // Closing the channel ends the thread's loop.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|it| (*it).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::detection::Detection2d;
    use crate::model::{Grounder, KeyedImage};

    struct Counter(ModelInfo, usize);

    impl Model for Counter {
        fn info(&self) -> &ModelInfo {
            &self.0
        }

        fn grounder(&mut self) -> Option<&mut dyn Grounder> {
            Some(self)
        }
    }

    impl Grounder for Counter {
        fn ground(&mut self, _: KeyedImage<'_>, _: &[&str]) -> Result<Vec<Vec<Detection2d>>, ModelError> {
            self.1 += 1;
            Ok(vec![Vec::new(); self.1])
        }
    }

    fn counter() -> Box<dyn Model> {
        let info = ModelInfo {
            name: "counter".to_owned(),
            model_type: "counter".to_owned(),
            device: "cpu".to_owned(),
            synthetic: true,
            input_side: None,
            is_told: false,
        };
        Box::new(Counter(info, 0))
    }

    fn count(model: &mut dyn Model) -> usize {
        let image = crate::image::RgbImage::new(1, 1);
        model.ground(KeyedImage::whole(0, &image), &[]).unwrap().len()
    }

    #[test]
    fn jobs_run_one_after_the_other_on_one_model() {
        let (worker, loaded) = ModelWorker::spawn(|| Ok(counter())).unwrap();
        assert_eq!(loaded.blocking_recv().unwrap().unwrap().name, "counter");
        for expected in 1..=3 {
            assert_eq!(worker.handle().submit(count).unwrap().blocking_recv().unwrap().unwrap(), expected);
        }
    }

    #[test]
    fn a_panic_costs_one_request() {
        let (worker, loaded) = ModelWorker::spawn(|| Ok(counter())).unwrap();
        loaded.blocking_recv().unwrap().unwrap();
        let broken = worker.handle().submit(|_| panic!("boom")).unwrap().blocking_recv().unwrap();
        assert!(matches!(broken, Err::<(), _>(AskError::Panicked(text)) if text == "boom"));
        assert_eq!(worker.handle().submit(count).unwrap().blocking_recv().unwrap().unwrap(), 1);
    }

    #[test]
    fn only_one_job_waits() {
        let (worker, loaded) = ModelWorker::spawn(|| Ok(counter())).unwrap();
        loaded.blocking_recv().unwrap().unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel::<()>();
        let first = worker
            .handle()
            .submit(move |_| {
                started.send(()).unwrap();
                gate.recv().unwrap();
            })
            .unwrap();
        running.recv().unwrap();
        assert!(worker.is_busy());
        let second = worker.handle().submit(count).unwrap();
        assert!(matches!(worker.handle().submit(count), Err(AskError::Busy)));
        release.send(()).unwrap();
        first.blocking_recv().unwrap().unwrap();
        assert_eq!(second.blocking_recv().unwrap().unwrap(), 1);
    }

    /// A job that is at work until the sender is dropped; the receiver tells when it has begun.
    fn held(worker: &ModelWorker) -> (mpsc::Sender<()>, oneshot::Receiver<Result<(), AskError>>) {
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel::<()>();
        let answer = worker
            .handle()
            .submit(move |_| {
                started.send(()).unwrap();
                gate.recv().unwrap_err();
            })
            .unwrap();
        running.recv().unwrap();
        (release, answer)
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn whoever_asks_after_a_canceled_request_waits_for_it() {
        let (worker, loaded) = ModelWorker::spawn(|| Ok(counter())).unwrap();
        loaded.await.unwrap().unwrap();
        let (release, canceled) = held(&worker);
        drop(canceled);
        // The queue of one is taken by another canceled request, too.
        drop(worker.handle().submit(|_| panic!("nobody wants this any more")).unwrap());
        let handle = worker.handle();
        let asked = tokio::spawn(async move { handle.ask(count, LONG).await });
        tokio::task::yield_now().await;
        assert!(!asked.is_finished());
        drop(release);
        assert_eq!(asked.await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn what_keeps_a_job_from_its_answer_is_told_apart() {
        let (worker, loaded) = ModelWorker::spawn(|| Ok(counter())).unwrap();
        loaded.await.unwrap().unwrap();
        let handle = worker.handle();
        let short = Duration::from_millis(20);
        let panicked = handle.ask(|_| panic!("boom"), LONG).await;
        assert!(matches!(panicked, Err::<(), _>(AskError::Panicked(text)) if text == "boom"));
        let (release, gate) = mpsc::channel::<()>();
        let late = handle.ask(move |_| gate.recv().unwrap_err(), short).await;
        assert!(matches!(late, Err(AskError::Timeout(it)) if it == short), "{late:?}");
        // That job is still at work: the next one is in the queue, the one after it is not.
        assert!(matches!(handle.ask(count, short).await, Err(AskError::Busy)));
        assert!(matches!(handle.ask(count, short).await, Err(AskError::Busy)));
        drop(release);
        assert_eq!(handle.ask(count, LONG).await.unwrap(), 1, "jobs that nobody awaits are not begun");
        drop(worker);
        assert!(matches!(handle.ask(count, LONG).await, Err(AskError::NotLoaded)));
    }

    #[test]
    fn a_model_that_does_not_load_says_so() {
        let (worker, loaded) =
            ModelWorker::spawn(|| Err(ModelError::Device("no such device".to_owned()))).unwrap();
        assert_eq!(loaded.blocking_recv().unwrap().unwrap_err().to_string(), "no such device");
        // The thread is ending: at the latest once it has, jobs are refused.
        while worker.handle().submit(count).is_ok() {
            std::thread::yield_now();
        }
    }
}
