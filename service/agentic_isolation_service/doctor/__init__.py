"""The doctor: whether this installation can isolate, found out by attacking workspaces from inside."""

from agentic_isolation_service.doctor.arena import DoctorError
from agentic_isolation_service.doctor.diagnosis import diagnose
from agentic_isolation_service.doctor.findings import (
    Attempt,
    Check,
    Diagnosis,
    Outcome,
    ProfileFindings,
    Status,
    Verdict,
)
from agentic_isolation_service.doctor.profiles import GVisor, Profile, profiles_of

__all__ = [
    "Attempt",
    "Check",
    "Diagnosis",
    "DoctorError",
    "GVisor",
    "Outcome",
    "Profile",
    "ProfileFindings",
    "Status",
    "Verdict",
    "diagnose",
    "profiles_of",
]
