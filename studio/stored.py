"""What an evaluation says, which its files hold in English, in the language of the reader."""

from grads import api
from studio import language


def told(sentence: str) -> str:
    """A sentence of the engine, of a result file or made on the spot."""
    return language.told(api.evaluation_sentence(sentence))


def arm(label: str) -> str:
    """What an arm is called."""
    return language.told(api.arm_in_words(label))
