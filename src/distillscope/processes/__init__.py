"""Work in several processes, and interrupts that leave nothing half done."""
