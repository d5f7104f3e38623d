"""Distillation: a small network learns from a bigger one."""
