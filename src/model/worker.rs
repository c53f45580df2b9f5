//! The model on a thread of its own: a slow model never makes anything else slow.
//!
//! One job at a time, handed over through a channel of one; the answer comes back through a oneshot channel. Whoever waits
//! may stop waiting: the job is finished, its answer dropped.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::{ModelError, ModelInfo, VisionLanguageModel};

type Job = Box<dyn FnOnce(&mut dyn VisionLanguageModel) + Send>;

/// A loaded model, or one being loaded, on its own thread. Dropping it waits for the job at hand.
pub struct ModelWorker {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    busy: Arc<AtomicBool>,
}

/// Why a job gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A job is running and another is waiting.
    #[error("the model is busy with the request before")]
    Busy,
    /// The thread is gone: the model could not be loaded.
    #[error("no model is loaded")]
    Gone,
    /// The job panicked. This is a bug.
    #[error("the model broke off ({0}); this is a bug, please report it")]
    Panicked(String),
}

impl ModelWorker {
    /// Starts the thread and loads the model there; the receiver tells how that went.
    pub fn spawn(
        load: impl FnOnce() -> Result<Box<dyn VisionLanguageModel>, ModelError> + Send + 'static,
    ) -> std::io::Result<(Self, oneshot::Receiver<Result<ModelInfo, ModelError>>)> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
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
            while let Ok(job) = queue.recv() {
                is_busy.store(true, Ordering::Relaxed);
                job(model.as_mut());
                is_busy.store(false, Ordering::Relaxed);
            }
        })?;
        Ok((Self { jobs: Some(jobs), thread: Some(thread), busy }, outcome))
    }

    /// Whether a job is running.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Hands a job over; its answer comes out of the receiver. Never blocks.
    pub fn submit<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn VisionLanguageModel) -> R + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<R, WorkerError>>, WorkerError> {
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move |model| {
            // A panic in a model must cost one request, not the node. Models keep no state that a half-finished call could
            // corrupt beyond their feature cache, which is keyed by image.
            let outcome = catch_unwind(AssertUnwindSafe(|| job(model)))
                .map_err(|panic| WorkerError::Panicked(panic_text(panic.as_ref())));
            answer.send(outcome).ok();
        });
        match &self.jobs {
            Some(jobs) => jobs.try_send(job).map_err(|err| match err {
                mpsc::TrySendError::Full(_) => WorkerError::Busy,
                mpsc::TrySendError::Disconnected(_) => WorkerError::Gone,
            })?,
            None => return Err(WorkerError::Gone),
        }
        Ok(receiver)
    }
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
    use super::*;
    use crate::detection::Detection2d;
    use crate::model::KeyedImage;

    struct Counter(ModelInfo, usize);

    impl VisionLanguageModel for Counter {
        fn info(&self) -> &ModelInfo {
            &self.0
        }

        fn ground(&mut self, _: KeyedImage<'_>, _: &[&str]) -> Result<Vec<Vec<Detection2d>>, ModelError> {
            self.1 += 1;
            Ok(vec![Vec::new(); self.1])
        }
    }

    fn counter() -> Box<dyn VisionLanguageModel> {
        let info = ModelInfo {
            name: "counter".to_owned(),
            model_type: "counter".to_owned(),
            device: "cpu".to_owned(),
            synthetic: true,
        };
        Box::new(Counter(info, 0))
    }

    fn count(model: &mut dyn VisionLanguageModel) -> usize {
        let image = crate::image::RgbImage::new(1, 1);
        model.ground(KeyedImage { key: 0, image: &image }, &[]).unwrap().len()
    }

    #[test]
    fn jobs_run_one_after_the_other_on_one_model() {
        let (worker, loaded) = ModelWorker::spawn(|| Ok(counter())).unwrap();
        assert_eq!(loaded.blocking_recv().unwrap().unwrap().name, "counter");
        for expected in 1..=3 {
            assert_eq!(worker.submit(count).unwrap().blocking_recv().unwrap().unwrap(), expected);
        }
    }

    #[test]
    fn a_panic_costs_one_request() {
        let (worker, loaded) = ModelWorker::spawn(|| Ok(counter())).unwrap();
        loaded.blocking_recv().unwrap().unwrap();
        let broken = worker.submit(|_| panic!("boom")).unwrap().blocking_recv().unwrap();
        assert!(matches!(broken, Err::<(), _>(WorkerError::Panicked(text)) if text == "boom"));
        assert_eq!(worker.submit(count).unwrap().blocking_recv().unwrap().unwrap(), 1);
    }

    #[test]
    fn only_one_job_waits() {
        let (worker, loaded) = ModelWorker::spawn(|| Ok(counter())).unwrap();
        loaded.blocking_recv().unwrap().unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel::<()>();
        let first = worker
            .submit(move |_| {
                started.send(()).unwrap();
                gate.recv().unwrap();
            })
            .unwrap();
        running.recv().unwrap();
        assert!(worker.is_busy());
        let second = worker.submit(count).unwrap();
        assert!(matches!(worker.submit(count), Err(WorkerError::Busy)));
        release.send(()).unwrap();
        first.blocking_recv().unwrap().unwrap();
        assert_eq!(second.blocking_recv().unwrap().unwrap(), 1);
    }

    #[test]
    fn a_model_that_does_not_load_says_so() {
        let (worker, loaded) =
            ModelWorker::spawn(|| Err(ModelError::Device("no such device".to_owned()))).unwrap();
        assert_eq!(loaded.blocking_recv().unwrap().unwrap_err().to_string(), "no such device");
        // The thread is ending: at the latest once it has, jobs are refused.
        while worker.submit(count).is_ok() {
            std::thread::yield_now();
        }
    }
}
