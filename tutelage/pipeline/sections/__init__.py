"""The sections of a recipe, one class each, with their defaults; an unknown key is an error."""

from .networks import BaselineSection as BaselineSection
from .networks import NamedSection as NamedSection
from .networks import PrunedSection as PrunedSection
from .networks import Section as Section
from .networks import StartSection as StartSection
from .networks import StudentSection as StudentSection
from .networks import TeacherSection as TeacherSection
from .networks import TrainSection as TrainSection
from .steps import BundleSection as BundleSection
from .steps import DataSection as DataSection
from .steps import DeviceSection as DeviceSection
from .steps import DistillSection as DistillSection
from .steps import ExplainSection as ExplainSection
from .steps import MeasureSection as MeasureSection
from .steps import QuantizeSection as QuantizeSection
from .steps import SearchSection as SearchSection
from .steps import SupernetSection as SupernetSection
