//! The states of a managed node.

/// A primary state, or the transition state in which work for one is done. Numbers as in `lifecycle_msgs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nothing loaded.
    Unconfigured = 1,
    /// Model loaded, not looking.
    Inactive = 2,
    /// Answering.
    Active = 3,
    /// Over.
    Finalized = 4,
    /// The model is being loaded.
    Configuring = 10,
    /// The model is being dropped.
    CleaningUp = 11,
    /// On the way to the end.
    ShuttingDown = 12,
    /// Starting to answer.
    Activating = 13,
    /// Ceasing to answer.
    Deactivating = 14,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Unconfigured,
        Self::Inactive,
        Self::Active,
        Self::Finalized,
        Self::Configuring,
        Self::CleaningUp,
        Self::ShuttingDown,
        Self::Activating,
        Self::Deactivating,
    ];

    /// Its name in the services.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unconfigured => "unconfigured",
            Self::Inactive => "inactive",
            Self::Active => "active",
            Self::Finalized => "finalized",
            Self::Configuring => "configuring",
            Self::CleaningUp => "cleaningup",
            Self::ShuttingDown => "shuttingdown",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
        }
    }
}
