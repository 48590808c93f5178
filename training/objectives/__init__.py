"""Objectives as functions of tensors."""
