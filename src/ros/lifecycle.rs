//! The lifecycle of a managed node, which r2r does not have: its states and transitions, and the services that tools
//! such as `ros2 lifecycle` and Nav2's lifecycle manager speak.
//!
//! Follows <https://design.ros2.org/articles/node_lifecycle.html> and the ids of `lifecycle_msgs`.

use futures::StreamExt as _;
use parking_lot::Mutex;
use r2r::lifecycle_msgs::{msg, srv};
use r2r::{Publisher, QosProfile};
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::state::State;

/// One edge between primary states.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Constant of `lifecycle_msgs/msg/Transition`.
    pub id: u8,
    /// Its name in the services.
    pub label: &'static str,
    /// Where it starts.
    pub start: State,
    /// Where the node is while it runs.
    pub via: State,
    /// Where it ends when all went well; on failure the node is back at `start`.
    pub goal: State,
}

/// All transitions that can be asked for.
pub const TRANSITIONS: [Transition; 7] = {
    use State::{
        Activating, Active, CleaningUp, Configuring, Deactivating, Finalized, Inactive, ShuttingDown,
        Unconfigured,
    };
    const fn edge(id: u8, label: &'static str, start: State, via: State, goal: State) -> Transition {
        Transition { id, label, start, via, goal }
    }
    [
        edge(1, "configure", Unconfigured, Configuring, Inactive),
        edge(2, "cleanup", Inactive, CleaningUp, Unconfigured),
        edge(3, "activate", Inactive, Activating, Active),
        edge(4, "deactivate", Active, Deactivating, Inactive),
        edge(5, "shutdown", Unconfigured, ShuttingDown, Finalized),
        edge(6, "shutdown", Inactive, ShuttingDown, Finalized),
        edge(7, "shutdown", Active, ShuttingDown, Finalized),
    ]
};

/// The transition a request asks for, if `state` has it: by id, or by label when the id is 0 or unknown.
pub fn find_transition(state: State, id: u8, label: &str) -> Option<Transition> {
    TRANSITIONS
        .into_iter()
        .find(|it| it.start == state && if id == 0 { it.label == label } else { it.id == id })
}

fn state_message(state: State) -> msg::State {
    msg::State { id: state as u8, label: state.label().to_owned() }
}

impl Transition {
    fn message(self) -> msg::Transition {
        msg::Transition { id: self.id, label: self.label.to_owned() }
    }

    fn description(self) -> msg::TransitionDescription {
        msg::TransitionDescription {
            transition: self.message(),
            start_state: state_message(self.start),
            goal_state: state_message(self.goal),
        }
    }
}

/// A transition somebody asked for, and where to say whether it was done.
pub struct TransitionRequest {
    /// Already known to start at the current state.
    pub transition: Transition,
    /// Whether the goal state was reached.
    pub done: oneshot::Sender<bool>,
}

/// The node's current state, told to services and to whoever listens on `~/transition_event`.
pub struct Lifecycle {
    state: watch::Sender<State>,
    /// A publisher is `Send` but not `Sync`.
    events: Mutex<Publisher<msg::TransitionEvent>>,
}

impl Lifecycle {
    /// Serves the five lifecycle services; accepted transitions come out of the receiver, one at a time.
    pub fn serve(node: &mut r2r::Node) -> r2r::Result<(Self, mpsc::Receiver<TransitionRequest>)> {
        let qos = QosProfile::services_default;
        let (state, watched) = watch::channel(State::Unconfigured);
        let (requests, received) = mpsc::channel(1);
        let events = Mutex::new(node.create_publisher("~/transition_event", QosProfile::default())?);

        let mut change = node.create_service::<srv::ChangeState::Service>("~/change_state", qos())?;
        let current = watched.clone();
        tokio::spawn(async move {
            while let Some(request) = change.next().await {
                let msg::Transition { id, label } = &request.message.transition;
                let transition = find_transition(*current.borrow(), *id, label);
                let success = if let Some(transition) = transition {
                    let (done, outcome) = oneshot::channel();
                    let sent = requests.send(TransitionRequest { transition, done }).await.is_ok();
                    sent && outcome.await.unwrap_or(false)
                } else {
                    let state = current.borrow().label();
                    tracing::warn!("refused transition {label:?} ({id}): the node is {state}");
                    false
                };
                request.respond(srv::ChangeState::Response { success }).ok();
            }
        });

        let mut get = node.create_service::<srv::GetState::Service>("~/get_state", qos())?;
        let current = watched.clone();
        tokio::spawn(async move {
            while let Some(request) = get.next().await {
                let current_state = state_message(*current.borrow());
                request.respond(srv::GetState::Response { current_state }).ok();
            }
        });

        let mut states =
            node.create_service::<srv::GetAvailableStates::Service>("~/get_available_states", qos())?;
        tokio::spawn(async move {
            while let Some(request) = states.next().await {
                let available_states = State::ALL.map(state_message).to_vec();
                request.respond(srv::GetAvailableStates::Response { available_states }).ok();
            }
        });

        for (name, whole_graph) in [("~/get_available_transitions", false), ("~/get_transition_graph", true)]
        {
            let mut service = node.create_service::<srv::GetAvailableTransitions::Service>(name, qos())?;
            let current = watched.clone();
            tokio::spawn(async move {
                while let Some(request) = service.next().await {
                    let state = *current.borrow();
                    let available_transitions = TRANSITIONS
                        .into_iter()
                        .filter(|it| whole_graph || it.start == state)
                        .map(Transition::description)
                        .collect();
                    request.respond(srv::GetAvailableTransitions::Response { available_transitions }).ok();
                }
            });
        }
        Ok((Self { state, events }, received))
    }

    /// The current state, to be watched.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Enters the transition's own state.
    pub fn begin(&self, transition: Transition) {
        self.state.send_replace(transition.via);
        self.publish(transition, transition.start, transition.via);
    }

    /// Leaves it for the goal, or back to the start.
    pub fn finish(&self, transition: Transition, success: bool) {
        let reached = if success { transition.goal } else { transition.start };
        self.state.send_replace(reached);
        self.publish(transition, transition.via, reached);
    }

    fn publish(&self, transition: Transition, start: State, goal: State) {
        let event = msg::TransitionEvent {
            timestamp: 0,
            transition: transition.message(),
            start_state: state_message(start),
            goal_state: state_message(goal),
        };
        // Fails only when the node is gone.
        self.events.lock().publish(&event).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_are_found_by_id_or_label_and_only_from_their_start() {
        let goal = |state, id, label| find_transition(state, id, label).map(|it| it.goal);
        assert_eq!(goal(State::Unconfigured, 1, ""), Some(State::Inactive));
        assert_eq!(goal(State::Unconfigured, 0, "configure"), Some(State::Inactive));
        assert_eq!(goal(State::Unconfigured, 3, "activate"), None);
        assert_eq!(goal(State::Active, 0, "shutdown"), Some(State::Finalized));
        assert_eq!(goal(State::Active, 5, "shutdown"), None, "5 shuts down the unconfigured");
        assert_eq!(goal(State::Configuring, 1, "configure"), None, "one transition at a time");
        assert_eq!(goal(State::Finalized, 1, "configure"), None);
    }
}
