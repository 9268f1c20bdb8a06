"""Every error a user can act on, and the exit code the shell sees.

recipes      RecipeError             the recipe is wrong                         2
             FileRefused             a file somebody named cannot be read        2
artifacts    StoreUnknown            no store for that URL                       2
             NotFound                no such name, version, alias or key         2
             StoreUnusable           the store cannot be written, or is full     4
             ArtifactCorrupt         files differ from their digests             1
             FileChanged             a file changed while it was hashed          1
             AliasMoved              somebody promoted first                     1
             NotPublishable          the verdict does not allow it               3
             PolicyRefused           the alias's policy does not allow it        3
             PolicyInvalid           a policy or waiver that cannot be meant     2
             NameRefused             an unsafe or ambiguous name                 2
             RowRefused              the registry cannot hold a given value      2
             StoreMismatch           the registry is of another store            2
             DestinationTaken        a pull would write into a full directory    2
             StoreBusy               a sweep takes longer than others wait       1
             LeaseLost               a lease was not renewed in time             1
             KeyUnusable             a key cannot be used as given               2
             NotTrusted              no trusted key signed these bytes           3
             SubscriptionRefused     nobody can be told of events that way       2
calibration  DataError               a data file cannot be used                  2
             CheckpointError         the source checkpoint cannot be quantized   2
             QuantizationIncomplete  modules would stay unquantized              1
             ActivationsUnusable     activations not finite, exploding or dead   1
             ResumeRefused           an interrupted pass had other inputs        1
             MemoryExceeded          calibration took more than its cap          1
pipeline     SourceError             the source checkpoint cannot be used        2
             BuildFailed             a program we started did not succeed        1
             GateFailed              the engine is not accurate enough           3
             NoFeasiblePoint         no tuning point reaches the service level   1
             BackendUnavailable      this host cannot build or run this engine   4
             ExportRefused           the version cannot be served that way       2
             TokenUnusable           the token cannot be read or is too short    2
             AddressUnusable         nothing can listen at that address          4
             ExchangeRefused         cannot be pushed there, or taken from there 2
             ExchangeFailed          the other side was not reached, or said no  1
             NotReproduced           a rebuild came to another engine            1
"""

from artifacts.errors import (
    AliasMoved,
    ArtifactCorrupt,
    DestinationTaken,
    FileChanged,
    KeyUnusable,
    LeaseLost,
    NameRefused,
    NotFound,
    NotPublishable,
    NotTrusted,
    PolicyInvalid,
    PolicyRefused,
    RowRefused,
    StoreBusy,
    StoreMismatch,
    StoreUnknown,
    StoreUnusable,
    SubscriptionRefused,
)
from calibration.errors import (
    ActivationsUnusable,
    CheckpointError,
    DataError,
    MemoryExceeded,
    QuantizationIncomplete,
    ResumeRefused,
)
from recipes.errors import RecipeError
from recipes.regular import FileRefused


class SourceError(Exception):
    """The source checkpoint cannot be used: missing, incomplete, truncated, unsupported or not finite."""


class BuildFailed(Exception):
    """A program we started did not succeed."""


class GateFailed(Exception):
    """The engine is not accurate enough, or the evidence does not suffice to say that it is."""


class NoFeasiblePoint(Exception):
    """No point of the search reaches the service level asked for."""


class BackendUnavailable(Exception):
    """This host cannot build or run this engine."""


class ExportRefused(Exception):
    """The version cannot be exported for that server, or not with these settings."""


class TokenUnusable(Exception):
    """The token that protects changes cannot be read, or can be guessed."""


class AddressUnusable(Exception):
    """Nothing can listen at that address."""


class ExchangeRefused(Exception):
    """What was named cannot be pushed there, or taken from there."""


class ExchangeFailed(Exception):
    """The system on the other side could not be reached, or did not do what was asked."""


class NotReproduced(Exception):
    """A rebuild came to other weights, or other files that servers go by, than the published version has."""


EXIT_CODES: dict[type[Exception], int] = {
    RecipeError: 2, StoreUnknown: 2, NotFound: 2, StoreUnusable: 4, ArtifactCorrupt: 1, AliasMoved: 1,
    NotPublishable: 3, DataError: 2, QuantizationIncomplete: 1, SourceError: 2, BuildFailed: 1,
    GateFailed: 3, NoFeasiblePoint: 1, BackendUnavailable: 4, FileChanged: 1, DestinationTaken: 2,
    CheckpointError: 2, ActivationsUnusable: 1, ResumeRefused: 1, MemoryExceeded: 1, ExportRefused: 2,
    PolicyRefused: 3, PolicyInvalid: 2, NameRefused: 2, StoreMismatch: 2, StoreBusy: 1, LeaseLost: 1,
    KeyUnusable: 2, NotTrusted: 3, SubscriptionRefused: 2, FileRefused: 2, RowRefused: 2,
    TokenUnusable: 2, AddressUnusable: 4,
    ExchangeRefused: 2, ExchangeFailed: 1, NotReproduced: 1,
}  # fmt: skip
"""0 done, 1 failed build, 2 recipe or usage, 3 gate said no, 4 this host cannot, 70 bug, 130 interrupted."""
