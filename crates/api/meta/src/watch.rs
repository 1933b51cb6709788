//! What a watch tells.

/// `type` of a watch event (`metav1.WatchEvent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::Bookmark => "BOOKMARK",
            EventType::Error => "ERROR",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [EventType; 5] = [EventType::Added, EventType::Modified, EventType::Deleted, EventType::Bookmark, EventType::Error];
        ALL.into_iter().find(|t| t.as_str() == name)
    }
}
