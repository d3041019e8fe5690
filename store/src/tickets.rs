//! Numbers for what is on its way.

/// Values by a number that each gets; numbers are used again.
#[derive(Debug)]
pub(crate) struct Tickets<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Tickets { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Tickets<T> {
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        if let Some(at) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(at)
        {
            *slot = Some(value);
            return at as u64;
        }
        self.slots.push(Some(value));
        self.slots.len() as u64 - 1
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn remove(&mut self, ticket: u64) -> Option<T> {
        let at = usize::try_from(ticket).ok()?;
        let value = self.slots.get_mut(at)?.take()?;
        self.free.push(at);
        Some(value)
    }
}
