use std::collections::BTreeMap;

use tiphys_types::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, PODS, ResourceList};

/// Amounts as whole numbers, CPU in thousandths, so that a node's fit is integer arithmetic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
    /// Extended resources and huge pages.
    pub scalar: BTreeMap<Box<str>, i64>,
}

impl Resources {
    pub fn from_list(list: &ResourceList) -> Self {
        let mut sum = Resources::default();
        for (name, amount) in list {
            match name.as_str() {
                CPU => sum.milli_cpu = amount.milli(),
                MEMORY => sum.memory = amount.value(),
                EPHEMERAL_STORAGE => sum.ephemeral_storage = amount.value(),
                PODS => sum.pods = amount.value(),
                _ => {
                    sum.scalar.insert(name.as_str().into(), amount.value());
                }
            }
        }
        sum
    }

    pub fn add(&mut self, other: &Resources) {
        self.change(other, 1);
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.change(other, -1);
    }

    fn change(&mut self, other: &Resources, sign: i64) {
        self.milli_cpu += sign * other.milli_cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_insert(0) += sign * amount;
        }
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalar.get(name).copied().unwrap_or(0)
    }
}
